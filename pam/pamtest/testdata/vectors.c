/*
 * vectors.c: holds client.c to pam/wire/testdata, and to hostile bytes. Built with
 * ASan and UBSan; prints nothing and exits 0 when all is well.
 *
 *   vectors questions FILE   each row encodes to exactly its bytes
 *   vectors answers FILE     each row decodes to what it says, or is refused
 *   vectors flip FILE        each answer, with every byte set to every value, cut and
 *                            grown: decoding stays inside its buffer and lets nothing
 *                            but verdict 1 allow
 *   vectors names L N        whether N is one of L's words: exits 0 or 1
 *   vectors clean            reads standard input, prints it cleaned
 *   vectors serve            decodes frame after frame for a fuzzer: u16 size and bytes in;
 *                            ok, allow, u32 seconds, and u16 + bytes of principal, session, accounts, text out
 */
#include "client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct row {
	char *sentence;
	uint8_t bytes[8192];
	size_t size;
	char *is;
	char *says[6];
	size_t count;
};

static int failures;

static void fail(const struct row *r, const char *why)
{
	printf("%s: %s\n", r->sentence, why);
	failures++;
}

static size_t unhex(const char *hex, uint8_t *out)
{
	size_t n = 0;
	unsigned byte;

	for (; sscanf(hex, "%2x", &byte) == 1; hex += 2)
		out[n++] = (uint8_t)byte;
	return n;
}

static bool parse(char *line, struct row *r)
{
	char *hex;

	line[strcspn(line, "\n")] = 0;
	if (line[0] == '#')
		return false;
	r->sentence = strsep(&line, "\t");
	hex = strsep(&line, "\t");
	r->is = strsep(&line, "\t");
	r->size = unhex(hex, r->bytes);
	for (r->count = 0; r->count < 6 && line; r->count++)
		r->says[r->count] = strsep(&line, "\t");
	return true;
}

/* The heap copy has exactly size bytes, so ASan sees a read of one too many. */
static bool decode(const uint8_t *bytes, size_t size, struct pim_answer *a)
{
	uint8_t *copy = malloc(size ? size : 1);
	bool ok;

	if (!copy)
		abort();
	memcpy(copy, bytes, size);
	ok = pim_decode(copy, size, a);
	free(copy);
	return ok;
}

static void question(const struct row *r)
{
	struct pim_question q = { r->is[0], { 0 } };
	uint8_t *buf;
	size_t n;

	if (strcmp(r->is, "bad") == 0)
		return; /* C never reads a question */
	for (size_t i = 0; i < r->count; i++)
		q.fields[i] = r->says[i];
	for (size_t size = 0; size <= r->size; size++) {
		buf = malloc(size ? size : 1);
		n = pim_encode(&q, buf, size);
		if (n != (size == r->size ? size : 0))
			fail(r, "wrong size");
		else if (n && memcmp(buf, r->bytes, n) != 0)
			fail(r, "wrong bytes");
		free(buf);
	}
}

static void answer(const struct row *r)
{
	struct pim_answer a;
	bool ok = decode(r->bytes, r->size, &a);

	if (strcmp(r->is, "bad") == 0) {
		if (ok || a.allow || a.seconds || a.principal[0] || a.text[0])
			fail(r, "not refused");
		return;
	}
	if (!ok || r->count != 5)
		fail(r, "refused");
	else if (a.allow != (strcmp(r->is, "allow") == 0) || a.seconds != strtoul(r->says[0], NULL, 10))
		fail(r, "wrong verdict or seconds");
	else if (strcmp(a.principal, r->says[1]) != 0 || strcmp(a.session, r->says[2]) != 0 || strcmp(a.run_as, r->says[3]) != 0 ||
	    strcmp(a.text, r->says[4]) != 0)
		fail(r, "wrong strings");
}

static void flip_one(const struct row *r, const uint8_t *b, size_t n)
{
	struct pim_answer a;
	bool ok = decode(b, n, &a);

	if (a.allow && (!ok || b[8] != 1))
		fail(r, "allowed after a flip");
	pim_clean(a.text);
	(void)pim_is_grant(a.principal, strlen(a.principal));
	(void)pim_names(a.run_as, a.session);
}

static void flip(const struct row *r)
{
	uint8_t b[sizeof r->bytes + 1];

	for (size_t n = 0; n <= r->size + 1; n++) {
		memcpy(b, r->bytes, r->size);
		b[r->size] = 0;
		flip_one(r, b, n);
	}
	for (size_t i = 0; i < r->size && i < 64; i++)
		for (unsigned v = 0; v < 256; v++) {
			memcpy(b, r->bytes, r->size);
			b[i] = (uint8_t)v;
			flip_one(r, b, r->size);
		}
}

static int clean(void)
{
	char s[65536];
	size_t n = fread(s, 1, sizeof s - 1, stdin);

	s[n] = 0;
	pim_clean(s);
	fputs(s, stdout);
	return 0;
}

static void put(const void *p, size_t n)
{
	fwrite(p, 1, n, stdout);
}

static void put_string(const char *s)
{
	uint16_t n = (uint16_t)strlen(s);

	put(&n, sizeof n);
	put(s, n);
}

static int serve(void)
{
	uint8_t b[65536];
	uint16_t size;

	while (fread(&size, sizeof size, 1, stdin) == 1 && fread(b, 1, size, stdin) == size) {
		struct pim_answer a;
		uint8_t head[2];

		head[0] = decode(b, size, &a);
		head[1] = a.allow;
		put(head, sizeof head);
		put(&a.seconds, sizeof a.seconds);
		put_string(a.principal);
		put_string(a.session);
		put_string(a.run_as);
		put_string(a.text);
		fflush(stdout);
	}
	return 0;
}

int main(int argc, char **argv)
{
	char line[65536];
	static struct row r;
	FILE *f;

	if (argc == 2 && strcmp(argv[1], "clean") == 0)
		return clean();
	if (argc == 2 && strcmp(argv[1], "serve") == 0)
		return serve();
	if (argc == 4 && strcmp(argv[1], "names") == 0)
		return !pim_names(argv[2], argv[3]);
	if (argc != 3 || !(f = fopen(argv[2], "r")))
		return 2;
	while (fgets(line, sizeof line, f)) {
		if (!parse(line, &r))
			continue;
		if (strcmp(argv[1], "questions") == 0)
			question(&r);
		else if (strcmp(argv[1], "answers") == 0)
			answer(&r);
		else
			flip(&r);
	}
	fclose(f);
	return failures != 0;
}
