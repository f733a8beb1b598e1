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

#include <errno.h>
#include <security/pam_ext.h>
#include <security/pam_modules.h>
#include <security/pam_modutil.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

/* ---- who is governed ---- */

static bool observing(const struct setting *s)
{
	struct stat st;

	return lstat(s->state, &st) != 0 && errno == ENOENT;
}

/* A name that cannot be a file of ours, or a file we cannot ask about, counts as listed. */
static bool listed(const struct setting *s, const char *name)
{
	char path[4096];
	struct stat st;
	size_t n = strnlen(name, PIM_MAX_NAME + 1);
	int wrote;

	if (n == 0 || n > PIM_MAX_NAME || name[0] == '.' || strchr(name, '/'))
		return true;
	wrote = snprintf(path, sizeof path, "%s/%s", s->state, name);
	if (wrote < 0 || (size_t)wrote >= sizeof path)
		return true;
	if (lstat(path, &st) == 0 || errno != ENOENT)
		return true;
	return lstat(s->state, &st) != 0 || !S_ISDIR(st.st_mode);
}

/* Asked by the name given, by the uid's own name, and for uid 0 as root. */
static bool governed(pam_handle_t *pamh, const struct setting *s, const char *name)
{
	const struct passwd *pw;

	if (listed(s, name))
		return true;
	pw = pam_modutil_getpwnam(pamh, name);
	if (!pw || (pw->pw_uid == 0 && listed(s, "root")))
		return true;
	pw = pam_modutil_getpwuid(pamh, pw->pw_uid);
	return !pw || listed(s, pw->pw_name);
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
static bool ask(pam_handle_t *pamh, const struct setting *s, char kind, struct pim_answer *a)
{
	static const char unheard[] =
		"pim-ssh: refused: the agent gave no answer; next: tell an operator to run `pim-hostd doctor`";
	struct pim_question q = question(pamh, kind);

	if (!pim_ask(s->socket, &q, a))
		memcpy(a->text, unheard, sizeof unheard);
	return a->allow;
}

/* ---- what account leaves for open_session ---- */

static const char account_said[] = "pim_account_said";

static void let_go(pam_handle_t *pamh, void *answer, int status)
{
	(void)pamh;
	(void)status;
	free(answer);
}

/* Keeps an answer that has put us into our session's cgroup, in place of any before it. */
static void keep(pam_handle_t *pamh, const struct pim_answer *a)
{
	struct pim_answer *kept = a->allow && a->session[0] ? malloc(sizeof *kept) : NULL;

	if (kept)
		*kept = *a;
	if (pam_set_data(pamh, account_said, kept, let_go) != PAM_SUCCESS)
		free(kept);
}

/*
 * Whether this run has its allowance already: account's answer has put it into its
 * session, the kernel says that it still lives there and nowhere else, it goes on as an
 * account of that answer, and the agent is there to be told. Everything else is asked.
 */
static bool has_begun(pam_handle_t *pamh, const struct setting *s)
{
	struct pim_question q = question(pamh, 'B');
	const void *value = NULL;
	const struct pim_answer *a;

	if (door_of(q.fields[0]) != DOOR_SUDO || pam_get_data(pamh, account_said, &value) != PAM_SUCCESS || !value)
		return false;
	a = value;
	q.fields[5] = a->session;
	return pim_names(a->run_as, item(pamh, PAM_USER)) && pim_inside(a->session) && pim_tell(s->socket, &q);
}

/* ---- the verdict ---- */

/* Asks, tells the person, and gives the verdict; while observing that is always yes. */
static int judge(pam_handle_t *pamh, const struct setting *s, char kind, int flags)
{
	bool enforcing = !observing(s);
	struct pim_answer a;
	bool yes = ask(pamh, s, kind, &a);

	if (kind == 'A')
		keep(pamh, &a);
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
		return observing(s) || governed(pamh, s, item(pamh, PAM_USER));
	case DOOR_SUDO:
		return !root;
	case DOOR_CALLER:
		return kind == 'A' && !root && !observing(s);
	case DOOR_TARGET:
		return kind == 'A' && !root && !observing(s) && governed(pamh, s, item(pamh, PAM_USER));
	case DOOR_LOGIN:
		return kind == 'A' && !observing(s) && governed(pamh, s, item(pamh, PAM_USER));
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
	if (has_begun(pamh, &s))
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
	if (!s.broken && asked(pamh, &s, 'C'))
		pim_tell(s.socket, &q);
	return PAM_SUCCESS;
}
