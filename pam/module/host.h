/*
 * host.h: what pam_pim.so asks the host itself: whom it governs, and where a process lives.
 */
#ifndef PIM_HOST_H
#define PIM_HOST_H

#include <security/pam_modules.h>
#include <stdbool.h>

/* Whether the state directory is plainly absent: this host refuses nobody. (governed.c) */
bool pim_observing(const char *state);

/* Whether an account is governed: by the name given, by its uid's own name, and for uid 0 as root. (governed.c) */
bool pim_governed(pam_handle_t *pamh, const char *state, const char *name);

/*
 * Whether the kernel says that this process lives in a grant's unit, in any hierarchy.
 * With a session ("pim-g-<stem>.service/s-<N>"): in it and in no other, in every
 * hierarchy where it lives in a grant's unit at all. (cgroup.c)
 */
bool pim_inside(const char *session);

#endif
