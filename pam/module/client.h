/*
 * client.h: one question to the agent, one answer back. Shared by pam_pim.so and
 * pim-principals; the bytes are those of pam/wire, held to its testdata.
 *
 * It denies unless a well-formed allowance from uid 0 arrives in time. It reads no
 * environment, keeps no state of its own between calls and forks, and never raises a
 * signal.
 */
#ifndef PIM_CLIENT_H
#define PIM_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	PIM_MAX_QUESTION = 16384, /* what a question's length prefix may say */
	PIM_MAX_ANSWER = 1024,    /* what an answer's may */
	PIM_PREFIX = 4,           /* the prefix itself */
	PIM_DEADLINE_MS = 800,    /* connect, ask and hear, all together; sshd pads a refusal to up to twice its time */
	PIM_MAX_NAME = 32         /* of an account we look up */
};

/* A question of one kind; fields are NUL-terminated, a NULL field is empty. */
struct pim_question {
	char kind; /* 'A', 'O', 'B', 'C' or 'P' */
	const char *fields[6];
};

/* The strings are NUL-terminated. All zero: denied. */
struct pim_answer {
	bool allow;
	uint32_t seconds;
	char principal[PIM_MAX_ANSWER];
	char session[PIM_MAX_ANSWER]; /* the cgroup that the asking process was put into */
	char run_as[PIM_MAX_ANSWER];  /* accounts that may be run as there */
	char text[PIM_MAX_ANSWER];
};

/* Writes the question with its prefix; returns its size, 0 when it does not fit. */
size_t pim_encode(const struct pim_question *q, uint8_t *buf, size_t size);

/* Reads one whole answer with its prefix. False, and *a denies, for all else. */
bool pim_decode(const uint8_t *buf, size_t size, struct pim_answer *a);

/* A connection that is kept after its answer; fd is -1 when it is not. */
struct pim_line {
	int fd;
	dev_t dev; /* of the socket, to know it again */
	ino_t ino;
};

/*
 * Asks at the socket. False, and *a denies, when no well-formed answer came. With a line,
 * the connection of an allowance that names a session is kept there.
 */
bool pim_ask(const char *path, const struct pim_question *q, struct pim_answer *a, struct pim_line *line);

/* Sends the question and does not wait to be heard. */
void pim_tell(const char *path, const struct pim_question *q);

/* Says something on a line that was kept. False when the agent that answered is not there to hear it. */
bool pim_say(const struct pim_line *line, const struct pim_question *q);

/* Ends a line; harmless without one. */
void pim_hang_up(struct pim_line *line);

/* Drops from s, in place, what is not printable UTF-8. */
void pim_clean(char *s);

/* Whether name, which is not empty, is one of list's words, parted by spaces. */
bool pim_names(const char *list, const char *name);

/* Whether s[0..n) is pim-g- and 26 of a-z2-7: a grant's principal and unit. */
bool pim_is_grant(const char *s, size_t n);

#endif
