/* governed.c: one empty file per governed name says whom this host governs; see host.h. */
#define _GNU_SOURCE
#include "host.h"

#include "client.h"

#include <errno.h>
#include <security/pam_modutil.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

bool pim_observing(const char *state)
{
	struct stat st;

	return lstat(state, &st) != 0 && errno == ENOENT;
}

/* A name that cannot be a file of ours, or a file we cannot ask about, counts as listed. */
static bool listed(const char *state, const char *name)
{
	char path[4096];
	struct stat st;
	size_t n = strnlen(name, PIM_MAX_NAME + 1);
	int wrote;

	if (n == 0 || n > PIM_MAX_NAME || name[0] == '.' || strchr(name, '/'))
		return true;
	wrote = snprintf(path, sizeof path, "%s/%s", state, name);
	if (wrote < 0 || (size_t)wrote >= sizeof path)
		return true;
	if (lstat(path, &st) == 0 || errno != ENOENT)
		return true;
	return lstat(state, &st) != 0 || !S_ISDIR(st.st_mode);
}

bool pim_governed(pam_handle_t *pamh, const char *state, const char *name)
{
	const struct passwd *pw;

	if (listed(state, name))
		return true;
	pw = pam_modutil_getpwnam(pamh, name);
	if (!pw || (pw->pw_uid == 0 && listed(state, "root")))
		return true;
	pw = pam_modutil_getpwuid(pamh, pw->pw_uid);
	return !pw || listed(state, pw->pw_name);
}
