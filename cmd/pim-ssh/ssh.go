package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

func sshCommand(d *desk) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ssh [ACCOUNT@]HOST [SSH-ARGUMENTS…]",
		Short: "ssh to a host under a live grant",
		Long: "Finds the live grant for ACCOUNT on HOST, makes sure its certificate is in hand, and becomes ssh, which checks\n" +
			"the host's key against what operators vouched for. ssh's own options go after the host. Plain ssh works\n" +
			"too once the certificate is in the ssh-agent.",
		Example: "  pim-ssh ssh postgres@db1\n  pim-ssh ssh postgres@db1 -v -- psql -l",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("pim-ssh ssh postgres@db1", "name a host")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return d.ssh(cmd.Context(), args[0], args[1:])
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func (d *desk) ssh(ctx context.Context, destination string, rest []string) error {
	account, asked, named := strings.Cut(destination, "@")
	if !named {
		account, asked = "", destination
	}
	p, err := d.pinned()
	if err != nil {
		return err
	}
	at := &contact{desk: d, pin: p}
	args, err := at.openAtHand(asked, statement.Account(account))
	if err != nil {
		args, err = d.openOnline(ctx, asked, statement.Account(account))
	}
	if err != nil {
		return err
	}
	return d.become(append(args, rest...))
}

// openAtHand is the way in without asking any broker: host, grant and certificate were all seen and verified before.
// A window that is open works with every broker dead; whether it was revoked meanwhile is the host's to know.
func (c *contact) openAtHand(asked string, account statement.Account) ([]string, error) {
	kept, err := c.keptHosts(c.chain)
	if err != nil {
		return nil, err
	}
	hosts := map[statement.HostName]enrolled{}
	for _, host := range kept {
		hosts[host.token.Name] = host
	}
	host, err := findHost(hosts, asked)
	if err != nil {
		return nil, err
	}
	live, err := c.keptGrants()
	if err != nil {
		return nil, err
	}
	if len(live) == 0 && account == "" {
		return nil, errNothingAtHand
	}
	r, account, err := c.choose(live, host, account)
	if err != nil || r == nil {
		return c.sshArguments(host, door{account: account}, err)
	}
	certificate, where := c.inHand(c.pin, *r.grant)
	if certificate == nil {
		return nil, errNothingAtHand
	}
	return c.sshArguments(host, door{account, certificate, where}, nil)
}

var errNothingAtHand = errors.New("no certificate is at hand")

// openOnline is the way in by what brokers show now, verified here.
func (d *desk) openOnline(ctx context.Context, asked string, account statement.Account) ([]string, error) {
	c, err := d.contact(ctx)
	if err != nil {
		return nil, err
	}
	hosts, err := c.hosts(ctx)
	if err != nil {
		return nil, err
	}
	host, err := findHost(hosts, asked)
	if err != nil {
		return nil, err
	}
	live, err := ownGrants(ctx, c)
	if err != nil {
		return nil, err
	}
	r, account, err := c.choose(live, host, account)
	if err != nil || r == nil {
		return c.sshArguments(host, door{account: account}, err)
	}
	certificate, where, err := c.collectByID(ctx, *r)
	return c.sshArguments(host, door{account, certificate, where}, err)
}

func findHost(hosts map[statement.HostName]enrolled, asked string) (enrolled, error) {
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		if hosts[name].answersTo(asked) {
			return hosts[name], nil
		}
	}
	return enrolled{}, missing("pim-ssh roles", "no host %s is enrolled%s", asked, didYouMean(asked, lines(slices.Sorted(maps.Keys(hosts)))))
}

// door is how to get in: an account, and the certificate for it; none for the person's own account, which opens
// as it always did.
type door struct {
	account     statement.Account
	certificate *ssh.Certificate
	where       string
}

// choose finds among the person's live grants the one that lets them log in on the host; none for their own account.
func (c *contact) choose(live []reading, host enrolled, account statement.Account) (*reading, statement.Account, error) {
	own := c.chain.Current().People[c.person].Account
	now := c.clock()
	here := slices.DeleteFunc(live, func(r reading) bool {
		phase := r.grant.Phase(now)
		return !slices.Contains(r.grant.Hosts, host.token.Name) || phase != broker.PhaseActive && phase != broker.PhaseWaiting
	})
	if account == "" {
		var err error
		if account, err = onlyAccount(here, own, host.token.Name); err != nil {
			return nil, "", err
		}
	}
	if account == own {
		return nil, own, nil
	}
	for _, r := range here {
		if !slices.Contains(r.grant.Accounts, account) {
			continue
		}
		if r.grant.Phase(now) == broker.PhaseActive {
			return &r, account, nil
		}
		c.term.Warn("%s starts %s", short(r.grantID()), moment(r.grant.From, now))
	}
	return nil, "", missing(c.wayIn(host, account), "no live grant lets you log in as %s on %s", account, host.token.Name)
}

func (c *contact) collectByID(ctx context.Context, r reading) (*ssh.Certificate, string, error) {
	if certificate, where := c.inHand(c.pin, *r.grant); certificate != nil {
		return certificate, where, nil
	}
	r, view, err := c.grant(ctx, string(r.grantID()))
	if err != nil {
		return nil, "", err
	}
	return c.collect(ctx, r, view)
}

// onlyAccount chooses the account when none was typed: the one that the live grants here open, if they agree; the
// person's own when they open none.
func onlyAccount(here []reading, own statement.Account, host statement.HostName) (statement.Account, error) {
	var opened []statement.Account
	for _, r := range here {
		opened = append(opened, r.grant.Accounts...)
	}
	slices.Sort(opened)
	opened = slices.Compact(opened)
	switch len(opened) {
	case 0:
		return own, nil
	case 1:
		return opened[0], nil
	}
	return "", usage(fmt.Sprintf("pim-ssh ssh %s@%s", opened[0], host), "your grants open several accounts on %s: %s", host, joined(opened))
}

// wayIn is the request that would open the account, when there is a role for it.
func (c *contact) wayIn(host enrolled, account statement.Account) string {
	doc := c.chain.Current()
	for _, name := range roleNames(doc) {
		role := doc.Roles[statement.RoleName(name)]
		if opens(role, host, account) && doc.Eligible(c.person, statement.RoleName(name)) {
			return fmt.Sprintf("pim-ssh request %s@%s --for %s --why …", name, host.token.Name, span(role.Default))
		}
	}
	return "pim-ssh roles"
}

func opens(role policy.Role, host enrolled, account statement.Account) bool {
	return slices.Contains(role.Accounts, account) && role.Hosts.Selects(host.token.Name, host.token.Labels)
}

// sshArguments names everything ssh needs: where the host is and who vouches for its key, and the one identity to use.
func (c *contact) sshArguments(host enrolled, in door, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	address, port := host.address()
	args := []string{
		"-o", fmt.Sprintf("KnownHostsCommand=%q known-hosts %%H", self),
		"-o", "UserKnownHostsFile=/dev/null", "-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes",
		"-o", "UpdateHostKeys=no", "-o", "VerifyHostKeyDNS=no",
		"-o", "HostKeyAlias=" + string(host.token.Name), "-o", "HostName=" + address,
	}
	if port != "" {
		args = append(args, "-p", port)
	}
	if in.certificate != nil {
		identity, err := c.identity(in)
		if err != nil {
			return nil, err
		}
		args = append(args, identity...)
	}
	return append(args, fmt.Sprintf("%s@%s", in.account, host.token.Name)), nil
}

// identity makes ssh offer this grant's certificate and nothing else. The public file tells ssh which of the
// ssh-agent's keys is meant.
func (c *contact) identity(in door) ([]string, error) {
	if in.where != "ssh-agent" {
		return []string{"-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-i", in.where, "-o", "CertificateFile=" + in.where + "-cert.pub"}, nil
	}
	stem, err := broker.ParsePrincipal(in.certificate.ValidPrincipals[0])
	if err != nil {
		return nil, err
	}
	path, err := c.keyPath(stem)
	if err != nil {
		return nil, err
	}
	public := path + "-cert.pub"
	if err := writeFile(public, ssh.MarshalAuthorizedKey(in.certificate), 0o600); err != nil {
		return nil, err
	}
	return []string{"-o", "IdentitiesOnly=yes", "-i", public}, nil // as CertificateFile ssh would look for the key in a file first
}

// address is where ssh dials: the host's name when the token lists it, else the token's first address.
func (e enrolled) address() (host, port string) {
	if slices.Contains(e.token.Addresses, string(e.token.Name)) {
		return string(e.token.Name), ""
	}
	first := e.token.Addresses[0]
	if inner, bracketed := strings.CutPrefix(first, "["); bracketed {
		host, port, _ = strings.Cut(inner, "]")
		return host, strings.TrimPrefix(port, ":")
	}
	return first, ""
}

// become replaces this program by ssh, so that signals, terminal and exit code are ssh's own.
func (d *desk) become(args []string) error {
	path, err := exec.LookPath("ssh")
	if err != nil {
		return invalid("apt install openssh-client", "there is no ssh here: %v", err)
	}
	return fmt.Errorf("starting %s: %w", path, syscall.Exec(path, append([]string{"ssh"}, args...), os.Environ()))
}
