/* client.c: see client.h for the contract. */
#define _GNU_SOURCE
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const char magic[] = { 'P', 'I', 'M', '1' };

/* ---- bytes ---- */

static size_t field_count(char kind)
{
	switch (kind) {
	case 'A':
	case 'P':
		return 4;
	case 'O':
	case 'C':
		return 6;
	case 'B':
		return 1;
	default:
		return 0;
	}
}

static void put_u32(uint8_t *b, size_t v)
{
	for (int i = 0; i < 4; i++)
		b[i] = (uint8_t)(v >> (8 * i));
}

static uint32_t get_u32(const uint8_t *b)
{
	return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

size_t pim_encode(const struct pim_question *q, uint8_t *buf, size_t size)
{
	size_t count = field_count(q->kind);
	size_t at = PIM_PREFIX + sizeof magic + 1;

	if (count == 0 || size < at)
		return 0;
	memcpy(buf + PIM_PREFIX, magic, sizeof magic);
	buf[at - 1] = (uint8_t)q->kind;
	for (size_t i = 0; i < count; i++) {
		const char *field = q->fields[i] ? q->fields[i] : "";
		size_t n = strnlen(field, PIM_MAX_QUESTION);

		if (size - at < 2 || size - at - 2 < n)
			return 0;
		buf[at++] = (uint8_t)n;
		buf[at++] = (uint8_t)(n >> 8);
		memcpy(buf + at, field, n);
		at += n;
	}
	if (at - PIM_PREFIX > PIM_MAX_QUESTION)
		return 0;
	put_u32(buf, at - PIM_PREFIX);
	return at;
}

/* Takes a u16 length and that many bytes, none of them NUL, off the front. */
static bool take_field(const uint8_t **b, size_t *left, char *out, size_t size)
{
	size_t n;

	if (*left < 2)
		return false;
	n = (size_t)((*b)[0] | (*b)[1] << 8);
	if (*left - 2 < n || n >= size || memchr(*b + 2, 0, n))
		return false;
	memcpy(out, *b + 2, n);
	out[n] = 0;
	*b += 2 + n;
	*left -= 2 + n;
	return true;
}

bool pim_decode(const uint8_t *buf, size_t size, struct pim_answer *a)
{
	const size_t fixed = PIM_PREFIX + sizeof magic + 1 + 4;
	const uint8_t *rest;
	size_t left;

	memset(a, 0, sizeof *a);
	if (size < fixed || size > PIM_PREFIX + PIM_MAX_ANSWER)
		return false;
	rest = buf + fixed;
	left = size - fixed;
	if (get_u32(buf) != size - PIM_PREFIX || memcmp(buf + PIM_PREFIX, magic, sizeof magic) != 0)
		return false;
	if (!take_field(&rest, &left, a->principal, sizeof a->principal) ||
	    !take_field(&rest, &left, a->session, sizeof a->session) ||
	    !take_field(&rest, &left, a->run_as, sizeof a->run_as) ||
	    !take_field(&rest, &left, a->text, sizeof a->text) || left != 0) {
		memset(a, 0, sizeof *a);
		return false;
	}
	a->allow = buf[PIM_PREFIX + sizeof magic] == 1;
	a->seconds = get_u32(buf + PIM_PREFIX + sizeof magic + 1);
	return true;
}

/* How many bytes the printable UTF-8 character at s has; 0 when there is none. */
static size_t printable(const unsigned char *s)
{
	static const uint32_t least[] = { 0, 0, 0xa0, 0x800, 0x10000 };
	size_t n = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
	uint32_t c;

	if (n < 2)
		return n == 1 && s[0] >= 0x20 && s[0] != 0x7f;
	c = s[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80) /* the NUL at the end stops it here */
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return 0;
	/* line and paragraph separators, and what turns a line around */
	if (c == 0x61c || (c >= 0x200e && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069))
		return 0;
	return n;
}

void pim_clean(char *s)
{
	char *out = s;

	while (*s) {
		size_t n = printable((const unsigned char *)s);

		memmove(out, s, n);
		out += n;
		s += n ? n : 1;
	}
	*out = 0;
}

bool pim_is_grant(const char *s, size_t n)
{
	static const char lead[] = { 'p', 'i', 'm', '-', 'g', '-' };

	if (n != sizeof lead + 26 || memcmp(s, lead, sizeof lead) != 0)
		return false;
	for (size_t i = sizeof lead; i < n; i++)
		if (!(s[i] >= 'a' && s[i] <= 'z') && !(s[i] >= '2' && s[i] <= '7'))
			return false;
	return true;
}

bool pim_names(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (const char *at = list; n > 0 && *at; at += strspn(at, " ")) {
		size_t word = strcspn(at, " ");

		if (word == n && memcmp(at, name, n) == 0)
			return true;
		at += word;
	}
	return false;
}

/* ---- the socket ---- */

/* Milliseconds of the clock that nobody sets; -1 when it cannot be read. */
static int64_t now_ms(void)
{
	struct timespec t;

	if (clock_gettime(CLOCK_MONOTONIC, &t) != 0)
		return -1;
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* What is left until the deadline, in 1..PIM_DEADLINE_MS; 0 when nothing is. */
static int left_ms(int64_t deadline)
{
	int64_t now = now_ms();
	int64_t left = deadline - now;

	if (now < 0 || left <= 0)
		return 0;
	return left > PIM_DEADLINE_MS ? PIM_DEADLINE_MS : (int)left;
}

/* Nobody but root may put a socket where ours should be. */
static bool directory_is_roots(const char *path)
{
	char dir[sizeof((struct sockaddr_un *)0)->sun_path];
	const char *slash = strrchr(path, '/');
	struct stat st;
	size_t n;

	if (path[0] != '/' || slash == path)
		return false;
	n = (size_t)(slash - path);
	if (n >= sizeof dir)
		return false;
	memcpy(dir, path, n);
	dir[n] = 0;
	return lstat(dir, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == 0 &&
	       (st.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

static bool peer_is_root(int fd)
{
	struct ucred peer;
	socklen_t n = sizeof peer;

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 && n == sizeof peer && peer.uid == 0;
}

/* A full backlog makes connect wait; SO_SNDTIMEO bounds that wait. */
static bool connect_by(int fd, const struct sockaddr_un *to, int64_t deadline)
{
	for (;;) {
		int left = left_ms(deadline);
		struct timeval tv = { left / 1000, (left % 1000) * 1000 };

		if (left == 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv) != 0)
			return false;
		if (connect(fd, (const struct sockaddr *)to, sizeof *to) == 0)
			return true;
		if (errno != EINTR)
			return false;
	}
}

/* A socket on a descriptor above 2, whatever the caller has closed. */
static int new_socket(void)
{
	int low = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int fd;

	if (low < 0 || low > 2)
		return low;
	fd = fcntl(low, F_DUPFD_CLOEXEC, 3);
	close(low);
	return fd;
}

static int open_agent(const char *path, int64_t deadline)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	size_t n = strnlen(path, sizeof to.sun_path);
	int fd;

	if (n >= sizeof to.sun_path || !directory_is_roots(path))
		return -1;
	memcpy(to.sun_path, path, n);
	fd = new_socket();
	if (fd < 0)
		return -1;
	if (connect_by(fd, &to, deadline) && peer_is_root(fd))
		return fd;
	close(fd);
	return -1;
}

/* Waits until fd can be read or written; false at the deadline. */
static bool wait_for(int fd, short events, int64_t deadline)
{
	struct pollfd p = { .fd = fd, .events = events };
	int left;

	while ((left = left_ms(deadline)) > 0) {
		int n = poll(&p, 1, left);

		if (n > 0)
			return true;
		if (n < 0 && errno != EINTR)
			return false;
	}
	return false;
}

static bool send_all(int fd, const uint8_t *b, size_t n, int64_t deadline)
{
	while (n > 0) {
		ssize_t did;

		if (!wait_for(fd, POLLOUT, deadline))
			return false;
		did = send(fd, b, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (did < 0 && errno != EINTR && errno != EAGAIN)
			return false;
		if (did > 0) {
			b += did;
			n -= (size_t)did;
		}
	}
	return true;
}

/* Reads until the agent closes. -1 for more than size bytes or no end in time. */
static ssize_t receive_all(int fd, uint8_t *b, size_t size, int64_t deadline)
{
	size_t have = 0;

	while (have < size) {
		ssize_t did;

		if (!wait_for(fd, POLLIN, deadline))
			return -1;
		did = recv(fd, b + have, size - have, MSG_DONTWAIT);
		if (did == 0)
			return (ssize_t)have;
		if (did < 0 && errno != EINTR && errno != EAGAIN)
			return -1;
		if (did > 0)
			have += (size_t)did;
	}
	return -1;
}

/* Connects and sends the question; returns the connection, -1 when that failed. */
static int put_question(const char *path, const struct pim_question *q, int64_t deadline)
{
	const size_t size = PIM_PREFIX + PIM_MAX_QUESTION;
	uint8_t *buf = malloc(size);
	size_t n = buf ? pim_encode(q, buf, size) : 0;
	int fd = n ? open_agent(path, deadline) : -1;

	if (fd >= 0 && !send_all(fd, buf, n, deadline)) {
		close(fd);
		fd = -1;
	}
	free(buf);
	return fd;
}

/* Keeps fd as the line when there is one to keep it for; else, and without *line, closes it. */
static void keep_line(int fd, const struct pim_answer *a, struct pim_line *line)
{
	struct stat st;

	if (!line || !a->allow || a->session[0] == 0 || fstat(fd, &st) != 0) {
		close(fd);
		return;
	}
	*line = (struct pim_line){ fd, st.st_dev, st.st_ino };
}

bool pim_ask(const char *path, const struct pim_question *q, struct pim_answer *a, struct pim_line *line)
{
	uint8_t answer[PIM_PREFIX + PIM_MAX_ANSWER + 1];
	int64_t deadline = now_ms() + PIM_DEADLINE_MS;
	int fd = put_question(path, q, deadline);
	ssize_t got;
	bool heard;

	memset(a, 0, sizeof *a);
	if (line)
		*line = (struct pim_line){ -1, 0, 0 };
	if (fd < 0)
		return false;
	got = receive_all(fd, answer, sizeof answer, deadline);
	heard = got >= 0 && pim_decode(answer, (size_t)got, a);
	keep_line(fd, a, line);
	return heard;
}

void pim_tell(const char *path, const struct pim_question *q)
{
	int fd = put_question(path, q, now_ms() + PIM_DEADLINE_MS);

	if (fd >= 0)
		close(fd);
}

/* The process is not ours: somebody may have closed the descriptor, and the number be another's now. */
static bool is_ours(const struct pim_line *line)
{
	struct stat st;

	return line->fd >= 0 && fstat(line->fd, &st) == 0 && st.st_dev == line->dev && st.st_ino == line->ino;
}

bool pim_say(const struct pim_line *line, const struct pim_question *q)
{
	uint8_t buf[256];
	size_t n = pim_encode(q, buf, sizeof buf);

	return n && is_ours(line) && send(line->fd, buf, n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n;
}

void pim_hang_up(struct pim_line *line)
{
	if (is_ours(line))
		close(line->fd);
	line->fd = -1;
}
