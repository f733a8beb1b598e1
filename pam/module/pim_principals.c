/*
 * pim_principals.c: sshd's AuthorizedPrincipalsCommand, run as `pim-principals %u %t
 * %k %K` under its own system account. It prints the one principal the agent allows
 * and exits 0, or prints nothing and exits 1; sshd then refuses the certificate.
 *
 * sshd obeys options that stand before a principal, so what the agent sent is
 * checked here once more and nothing but pim-g-<stem> is ever printed.
 */
#include "client.h"

#include <string.h>
#include <unistd.h>

#ifndef PIM_SOCKET /* tests set another */
#define PIM_SOCKET "/run/pim-ssh/principals.sock"
#endif

int main(int argc, char **argv)
{
	struct pim_answer a;
	size_t n;

	if (argc != 5)
		return 1;
	struct pim_question q = { 'P', { argv[1], argv[2], argv[3], argv[4] } };
	if (!pim_ask(PIM_SOCKET, &q, &a, NULL) || !a.allow)
		return 1;
	n = strlen(a.principal);
	if (!pim_is_grant(a.principal, n))
		return 1;
	a.principal[n] = '\n';
	return write(STDOUT_FILENO, a.principal, n + 1) == (ssize_t)(n + 1) ? 0 : 1;
}
