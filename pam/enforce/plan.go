package enforce

import (
	"slices"
	"strings"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Plan is what must hold on one host. The zero Plan governs nobody and trusts no CA.
type Plan struct {
	Governed []statement.Account // accounts that a role reaches here, to log in as or to run as: sorted, unique
	CAs      []statement.Key     // the brokers' CA keys: sorted, unique
	Exempt   []Exempt            // host.yaml's service accounts, for named commands only
}

// Exempt lets a service account run named commands without a grant. No role may run as or log in as it.
type Exempt struct {
	Account  statement.Account
	As       statement.Account
	Commands []policy.Command // exact ones; never ALL
}

// PlanFor computes the plan of the host with this name and these operator-signed labels.
func PlanFor(doc *policy.Document, name statement.HostName, labels map[string]string, exempt []Exempt) Plan {
	governed := map[statement.Account]bool{}
	for _, role := range doc.Roles {
		if !role.Hosts.Selects(name, labels) {
			continue
		}
		for _, a := range role.Accounts {
			governed[a] = true
		}
		for _, rule := range role.Sudo {
			governed[rule.As] = true
		}
	}
	return Plan{Governed: sorted(governed), CAs: doc.CAKeys(), Exempt: exempt}
}

// Check refuses a plan that would let an exempt account around the grants: one that is itself governed, or that may run
// anything.
func (p Plan) Check() error {
	for _, e := range p.Exempt {
		if slices.Contains(p.Governed, e.Account) {
			return problem("host.yaml: exempt account "+string(e.Account)+" is governed by a role here", "take it out of host.yaml, or out of the role's accounts")
		}
		if len(e.Commands) == 0 || slices.Contains(e.Commands, policy.All) {
			return problem("host.yaml: exempt account "+string(e.Account)+" must list exact commands, never ALL", "name each command with its arguments")
		}
	}
	return nil
}

// Sudoers is the static drop-in: first everything is denied to all but uid 0, whatever stood before; then come the exact
// exemptions and the grants' own files, and the last match wins. It holds with the agent dead.
func (p Plan) Sudoers() string {
	var b strings.Builder
	b.WriteString(generated)
	b.WriteString("ALL, !\\#0 ALL=(ALL:ALL) !ALL\n") // no alias: one of that name in an earlier file would stand in its place
	for _, e := range p.Exempt {
		for _, c := range e.Commands {
			b.WriteString(string(e.Account) + " ALL=(" + string(e.As) + ") NOPASSWD: " + c.Sudoers() + "\n")
		}
	}
	b.WriteString("@includedir /run/pim-ssh/sudoers.d\n")
	for _, scope := range []string{"Defaults", "Defaults!ALL"} { // what is said about a command counts after what is said about all
		b.WriteString(scope + " pam_acct_mgmt, pam_session, pam_setcred, !intercept\n")
		b.WriteString(scope + " pam_service=sudo, pam_login_service=sudo-i, pam_askpass_service=sudo\n")
	}
	return b.String()
}

// sshdKeywords is what sshd must say for a governed account: certificates of ours, judged by the agent, and no other door.
var sshdKeywords = [][2]string{
	{"TrustedUserCAKeys", caFile},
	{"AuthorizedPrincipalsCommand", principals + " %u %t %k %K"},
	{"AuthorizedPrincipalsCommandUser", "pim-principals"},
	{"AuthorizedPrincipalsFile", "none"},
	{"AuthorizedKeysFile", "none"},
	{"AuthorizedKeysCommand", "none"},
	{"AuthenticationMethods", "publickey"},
	{"PubkeyAuthentication", "yes"},
	{"MaxAuthTries", "20"}, // ssh offers every certificate in the ssh-agent, one for each grant
	{"PasswordAuthentication", "no"},
	{"KbdInteractiveAuthentication", "no"},
	{"HostbasedAuthentication", "no"},
	{"GSSAPIAuthentication", "no"},
	{"KerberosAuthentication", "no"},
	{"PermitEmptyPasswords", "no"},
	{"PermitRootLogin", "prohibit-password"},
	{"AllowTcpForwarding", "no"},
	{"AllowStreamLocalForwarding", "no"},
	{"AllowAgentForwarding", "no"},
	{"X11Forwarding", "no"},
	{"PermitTunnel", "no"},
	{"PermitUserRC", "no"},
}

// SSHD is the drop-in. Our CA stands inside Match blocks only, so that no other account ever accepts it (FACTS F17); what
// the host says about other accounts, its own CA included, stays as it was. Only the log says more: at INFO sshd keeps to
// itself whose certificate it refused, and by which CA.
func (p Plan) SSHD() string {
	var b strings.Builder
	b.WriteString(generated)
	if len(p.Governed) > 0 {
		b.WriteString("LogLevel VERBOSE\n")
		b.WriteString("Match User " + joinAccounts(p.Governed) + "\n")
		for _, kv := range sshdKeywords {
			b.WriteString("    " + kv[0] + " " + kv[1] + "\n")
		}
		b.WriteString("Match all\n")
	}
	return b.String()
}

// CAFile is the content of TrustedUserCAKeys.
func (p Plan) CAFile() string {
	var b strings.Builder
	for _, k := range p.CAs {
		b.WriteString(string(k) + "\n")
	}
	return b.String()
}

const generated = "# Written by pim-hostd enforce from the signed policy; pim-hostd observe takes it away. Changes here are undone.\n"

func joinAccounts(accounts []statement.Account) string {
	var out []string
	for _, a := range accounts {
		out = append(out, string(a))
	}
	return strings.Join(out, ",")
}

func sorted(set map[statement.Account]bool) []statement.Account {
	var out []statement.Account
	for a := range set {
		out = append(out, a)
	}
	slices.Sort(out)
	return out
}
