package enforce

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// Verify reads back, with sshd's and sudo's own parsers, that the plan holds here and that nothing later in their order
// overrules it. It changes nothing.
func Verify(ctx context.Context, p Plan) error {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return err
	}
	for _, check := range []func() error{
		func() error { return verifySSHD(ctx, p, string(passwd)) },
		verifySudoers,
		verifySudoSources,
		verifyPAM,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// verifySSHD reads every sshd's configuration, and asks sshd itself, account by account: the governed ones have our doors
// and no other, and nobody else accepts our CA (FACTS F17).
func verifySSHD(ctx context.Context, p Plan, passwd string) error {
	servers, err := sshds(ctx)
	if err != nil {
		return err
	}
	for _, s := range servers {
		all, err := directives(s.config())
		if err != nil {
			return problem(s.String()+": "+err.Error(), "stop that sshd, or repair "+s.config())
		}
		if err := p.verifyCA(all); err != nil {
			return err
		}
		if err := p.verifyFirst(s.config(), all); err != nil {
			return err
		}
		if err := p.verifyAccounts(ctx, s, passwd); err != nil {
			return err
		}
	}
	return nil
}

func (p Plan) verifyAccounts(ctx context.Context, s sshd, passwd string) error {
	for _, a := range p.Governed {
		have, err := s.effective(ctx, string(a))
		if err != nil {
			return err
		}
		for _, kv := range sshdKeywords {
			want := strings.ToLower(kv[1])
			if got := strings.ToLower(have[strings.ToLower(kv[0])]); !sameValue(got, want) {
				return problem(fmt.Sprintf("%s: %s for %s is %q, not %q", s, kv[0], a, got, kv[1]), "find what overrules "+sshdDropIn+": "+s.String()+" -T -C user="+string(a))
			}
		}
		if have["usepam"] != "yes" {
			return problem(s.String()+": UsePAM is off: windows could not be enforced", "write UsePAM yes into "+s.config()+", and take it off its command line")
		}
	}
	for _, name := range p.others(passwd) {
		have, err := s.effective(ctx, name)
		if err != nil {
			return err
		}
		if p.holdsCA(have["trustedusercakeys"]) {
			return problem(s.String()+": "+name+" accepts our CA but no role reaches it here", "find what overrules "+sshdDropIn+": "+s.String()+" -T -C user="+name)
		}
	}
	return nil
}

// sameValue knows how sshd -T spells: prohibit-password as without-password, and an unset file as none.
func sameValue(got, want string) bool {
	if want == "prohibit-password" {
		return got == "without-password" || got == want
	}
	return got == want || want == "none" && got == ""
}

// effective is sshd's configuration for one account, by lower-case keyword; the first value of a repeated one.
func (s sshd) effective(ctx context.Context, account string) (map[string]string, error) {
	out, err := run(ctx, "sshd", append([]string{"-T", "-C", "user=" + account + ",host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22"}, s.args...)...)
	if err != nil {
		return nil, err
	}
	have := map[string]string{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if _, seen := have[key]; !seen {
			have[key] = value
		}
	}
	return have, nil
}
