/*
 * pam_pim.c: the module in the account and session stacks. It decides which PAM
 * conversations concern us, asks the agent about those, and refuses unless it hears
 * an allowance. It judges nothing itself: who may do what is the agent's.
 *
 * It returns PAM_SUCCESS or PAM_PERM_DENIED and nothing else (sudo lets other codes
 * pass), but for `inside`, which says PAM_IGNORE when it has nothing to say. It has no
 * authenticate function, so an auth line naming it fails.
 *
 * While the state directory exists this host enforces, and an answer that does not
 * come is a refusal. While it is missing the host observes: the agent hears about sudo
 * and sshd and writes down what it would refuse, and everything passes.
 *
 *   inside        succeed in a session stack when already in a grant's unit
 *   socket=PATH   the agent's socket         (for tests)
 *   state=DIR     one file per governed name (for tests)
 */
#define _GNU_SOURCE
#include "client.h"
#include "host.h"

#include <security/pam_ext.h>
#include <security/pam_modules.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

struct setting {
	const char *socket;
	const char *state;
	bool inside;
	bool broken; /* an argument nobody defined */
};

/* What a service gives to whom. A service nobody listed is a login. */
enum door {
	DOOR_LOGIN,  /* PAM_USER's power after a password or so: never when it is governed */
	DOOR_SSHD,   /* a login too, but by our certificates */
	DOOR_SUDO,   /* another account's power; PAM_USER is the caller in account */
	DOOR_CALLER, /* the same by another name: never while we enforce, but for root */
	DOOR_TARGET, /* PAM_USER's power: never when it is governed, but for root */
	DOOR_OWN,    /* what root or a schedule starts: the deny files and masks guard these */
};

static enum door door_of(const char *service)
{
	static const struct {
		const char *service;
		enum door door;
	} doors[] = {
		{ "sshd", DOOR_SSHD },    { "sudo", DOOR_SUDO },         { "sudo-i", DOOR_SUDO },
		{ "doas", DOOR_CALLER },  { "polkit-1", DOOR_CALLER },   { "su", DOOR_TARGET },
		{ "su-l", DOOR_TARGET },  { "runuser", DOOR_OWN },       { "runuser-l", DOOR_OWN },
		{ "cron", DOOR_OWN },     { "atd", DOOR_OWN },           { "systemd-user", DOOR_OWN },
		{ "chfn", DOOR_TARGET },  { "chsh", DOOR_TARGET }, /* PAM_USER is who calls them: adduser does, as root */
	};

	for (size_t i = 0; i < sizeof doors / sizeof doors[0]; i++)
		if (strcmp(service, doors[i].service) == 0)
			return doors[i].door;
	return DOOR_LOGIN;
}

static struct setting read_setting(int argc, const char **argv)
{
	struct setting s = { "/run/pim-ssh/pam.sock", "/var/lib/pim-ssh/enforcing", false, false };

	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "inside") == 0)
			s.inside = true;
		else if (strncmp(argv[i], "socket=", 7) == 0)
			s.socket = argv[i] + 7;
		else if (strncmp(argv[i], "state=", 6) == 0)
			s.state = argv[i] + 6;
		else
			s.broken = true;
	}
	return s;
}

static const char *item(pam_handle_t *pamh, int which)
{
	const void *value = NULL;

	if (pam_get_item(pamh, which, &value) != PAM_SUCCESS || !value)
		return "";
	return value;
}

/* ---- asking ---- */

static const char caller_is_root[] = "pim_caller_is_root";

/* A sudo that took root's real uid before open_session is not root's: account leaves word. */
static void remember_root(pam_handle_t *pamh)
{
	union { const char *in; void *out; } any = { caller_is_root };

	(void)pam_set_data(pamh, caller_is_root, any.out, NULL);
}

static bool root_remembered(const pam_handle_t *pamh)
{
	const void *value = NULL;

	return pam_get_data(pamh, caller_is_root, &value) == PAM_SUCCESS && value == caller_is_root;
}

/* PAM_SILENT does not silence a refusal: sudo sets it, and the person must know why. */
static void tell(pam_handle_t *pamh, struct pim_answer *a, int flags)
{
	pim_clean(a->text);
	if (a->text[0] == 0 || (a->allow && ((unsigned)flags & PAM_SILENT)))
		return;
	(void)pam_prompt(pamh, a->allow ? PAM_TEXT_INFO : PAM_ERROR_MSG, NULL, "%s", a->text);
}

static struct pim_question question(pam_handle_t *pamh, char kind)
{
	return (struct pim_question){
		kind,
		{ item(pamh, PAM_SERVICE), item(pamh, PAM_USER), item(pamh, PAM_RUSER), item(pamh, PAM_RHOST),
		  item(pamh, PAM_TTY), kind == 'A' ? NULL : pam_getenv(pamh, "SSH_AUTH_INFO_0") },
	};
}

/* True only for a well-formed allowance. Otherwise *a holds the agent's text or ours. */
static bool ask(pam_handle_t *pamh, const struct setting *s, char kind, struct pim_answer *a, struct pim_line *line)
{
	static const char unheard[] =
		"pim-ssh: refused: the agent gave no answer; next: tell an operator to run `pim-hostd doctor`";
	struct pim_question q = question(pamh, kind);

	if (!pim_ask(s->socket, &q, a, line))
		memcpy(a->text, unheard, sizeof unheard);
	return a->allow;
}

/* ---- what account leaves for open_session ---- */

static const char account_said[] = "pim_account_said";

struct said {
	struct pim_answer answer;
	struct pim_line line;
};

static void let_go(pam_handle_t *pamh, void *data, int status)
{
	struct said *said = data;

	(void)pamh;
	(void)status;
	if (said)
		pim_hang_up(&said->line);
	free(said);
}

/* Keeps what a line was kept for, in place of all before it. */
static void keep(pam_handle_t *pamh, const struct pim_answer *a, struct pim_line *line)
{
	struct said *said = line->fd < 0 ? NULL : malloc(sizeof *said);

	if (said)
		*said = (struct said){ *a, *line };
	else
		pim_hang_up(line);
	if (pam_set_data(pamh, account_said, said, let_go) != PAM_SUCCESS)
		let_go(pamh, said, 0);
}

static const struct said *kept(const pam_handle_t *pamh)
{
	const void *value = NULL;

	return pam_get_data(pamh, account_said, &value) == PAM_SUCCESS ? value : NULL;
}

/*
 * Whether this run has its allowance already: account's answer has put it into its
 * session, the kernel says that it still lives there and nowhere else, it goes on as an
 * account of that answer, and the agent that gave it hears so. All else is asked.
 */
static bool has_begun(pam_handle_t *pamh)
{
	struct pim_question q = { 'B', { item(pamh, PAM_USER) } };
	const struct said *said = kept(pamh);

	return said && door_of(item(pamh, PAM_SERVICE)) == DOOR_SUDO && pim_names(said->answer.run_as, q.fields[0]) &&
	       pim_inside(said->answer.session) && pim_say(&said->line, &q);
}

/* ---- the verdict ---- */

/* Asks, tells the person, and gives the verdict; while observing that is always yes. */
static int judge(pam_handle_t *pamh, const struct setting *s, char kind, int flags)
{
	bool enforcing = !pim_observing(s->state);
	struct pim_line line;
	struct pim_answer a;
	bool yes = ask(pamh, s, kind, &a, &line);

	keep(pamh, &a, &line);
	if (yes || enforcing)
		tell(pamh, &a, flags);
	return yes || !enforcing ? PAM_SUCCESS : PAM_PERM_DENIED;
}

/* Whether the agent must say yes here ('A', 'O') or hear about it ('C'). */
static bool asked(pam_handle_t *pamh, const struct setting *s, char kind)
{
	bool root = root_remembered(pamh);

	switch (door_of(item(pamh, PAM_SERVICE))) {
	case DOOR_SSHD:
		return pim_observing(s->state) || pim_governed(pamh, s->state, item(pamh, PAM_USER));
	case DOOR_SUDO:
		return !root;
	case DOOR_CALLER:
		return kind == 'A' && !root && !pim_observing(s->state);
	case DOOR_TARGET:
		return kind == 'A' && !root && !pim_observing(s->state) && pim_governed(pamh, s->state, item(pamh, PAM_USER));
	case DOOR_LOGIN:
		return kind == 'A' && !pim_observing(s->state) && pim_governed(pamh, s->state, item(pamh, PAM_USER));
	case DOOR_OWN:
		break;
	}
	return false;
}

/* ---- what libpam calls ---- */

EXPORT int pam_sm_acct_mgmt(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	struct setting s = read_setting(argc, argv);

	if (s.broken)
		return PAM_PERM_DENIED;
	if (s.inside)
		return PAM_IGNORE;
	if (getuid() == 0)
		remember_root(pamh);
	return asked(pamh, &s, 'A') ? judge(pamh, &s, 'A', flags) : PAM_SUCCESS;
}

EXPORT int pam_sm_open_session(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	struct setting s = read_setting(argc, argv);
	int verdict;

	if (s.broken)
		return PAM_PERM_DENIED;
	if (s.inside)
		return pim_inside(NULL) ? PAM_SUCCESS : PAM_IGNORE;
	if (has_begun(pamh))
		return PAM_SUCCESS;
	verdict = asked(pamh, &s, 'O') ? judge(pamh, &s, 'O', flags) : PAM_SUCCESS;
	/* sshd goes on after a failed open_session; it cannot go on after this. */
	if (verdict != PAM_SUCCESS && door_of(item(pamh, PAM_SERVICE)) == DOOR_SSHD)
		_exit(1);
	return verdict;
}

EXPORT int pam_sm_close_session(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	struct setting s = read_setting(argc, argv);
	struct pim_question q = question(pamh, 'C');

	(void)flags;
	if (s.inside && !s.broken)
		return pim_inside(NULL) ? PAM_SUCCESS : PAM_IGNORE;
	if (!s.broken && !kept(pamh) && asked(pamh, &s, 'C')) /* the end of a line that was kept says it all */
		pim_tell(s.socket, &q);
	return PAM_SUCCESS;
}
