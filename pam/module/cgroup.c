/* cgroup.c: where the kernel says this process lives; see host.h. */
#define _GNU_SOURCE
#include "host.h"

#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* Reads /proc/self/cgroup; the size that has no room for it all is no answer. */
static size_t read_own(char *text, size_t size)
{
	size_t have = 0;
	ssize_t did = 1;
	int fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	while (did != 0 && have < size) {
		did = read(fd, text + have, size - have);
		if (did < 0 && errno != EINTR)
			break;
		if (did > 0)
			have += (size_t)did;
	}
	close(fd);
	return did == 0 ? have : 0;
}

static bool is_unit(const char *s, size_t n)
{
	static const char suffix[] = ".service";
	const size_t tail = sizeof suffix - 1;

	return n > tail && memcmp(s + n - tail, suffix, tail) == 0 && pim_is_grant(s, n - tail);
}

/* What of a line begins with a grant's unit, and in *n its size; NULL without one. */
static const char *from_unit(const char *line, const char *end, size_t *n)
{
	for (const char *at = line; at < end;) {
		const char *slash = memchr(at, '/', (size_t)(end - at));

		*n = (size_t)(end - at);
		if (is_unit(at, slash ? (size_t)(slash - at) : *n))
			return at;
		at = slash ? slash + 1 : end;
	}
	return NULL;
}

bool pim_inside(const char *session)
{
	char text[16384];
	const char *end = text + read_own(text, sizeof text);
	bool inside = false;

	for (const char *line = text, *newline; line < end; line = newline + 1) {
		const char *unit;
		size_t n;

		newline = memchr(line, '\n', (size_t)(end - line));
		if (!newline)
			return false;
		unit = from_unit(line, newline, &n);
		if (unit && session && (n != strlen(session) || memcmp(unit, session, n) != 0))
			return false;
		inside = inside || unit;
	}
	return inside;
}
