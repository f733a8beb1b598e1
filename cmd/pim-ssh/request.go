package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// freshFor is how long a statement may take from our hand to the log; brokers take none older than 60 s anyway.
const freshFor statement.Seconds = 300

// wish is what was typed after `request`, or after `extend`.
type wish struct {
	asked, length, why, ticket, at string
	code, key                      string
	hosts                          []string // with extend: fewer than the grant has
	noWait                         bool
	timeout                        string
}

func requestCommand(d *desk) *cobra.Command {
	var w wish
	cmd := &cobra.Command{
		Use:   "request ROLE[@SCOPE]",
		Short: "ask for a role on hosts, for a while, with a reason",
		Long: "Asks for a role and waits until it is granted; then the certificate is in the ssh-agent until the window\n" +
			"ends. SCOPE is a host, several with commas, or labels such as tier=db, which are turned into host names here\n" +
			"and shown. The request's id is the first line on stdout, the ssh commands that work are the next ones.\n\n" +
			"With --at the window begins then, and everything is judged once more at that moment. Where the role wants a\n" +
			"code it is asked for on the terminal, or taken from --totp; where it wants a security key, yours is found by\n" +
			"itself. Asking again for what is still pending answers with that request, and waits for it.",
		Example: "  pim-ssh request db-admin@db1 --for 1h --why \"INC-42 replica lag\"\n" +
			"  pim-ssh request web-deploy@tier=web --at 22:00 --why \"release 7\" --ticket REL-7",
		Args:              roleAndScope,
		ValidArgsFunction: d.completeRoles,
		RunE: func(cmd *cobra.Command, args []string) error {
			w.asked = args[0]
			return d.request(cmd.Context(), w)
		},
	}
	askFlags(cmd, &w)
	cmd.Flags().StringVar(&w.at, "at", "", "start at `TIME` and not at once: 22:00, +2h or RFC 3339")
	return cmd
}

// askFlags are what every way of asking takes.
func askFlags(cmd *cobra.Command, w *wish) {
	flags := cmd.Flags()
	flags.StringVar(&w.length, "for", "", "how long the window is: a `DURATION` such as 1h or 90m (default: the role's own)")
	flags.StringVar(&w.why, "why", "", "the reason, in a `TEXT` that approvers read")
	flags.StringVar(&w.ticket, "ticket", "", "the ticket `T` that belongs to it")
	flags.StringVar(&w.code, "totp", "", "a `CODE` of your authenticator app, or a recovery code, where the role wants one")
	flags.StringVar(&w.key, "key", "", "sign with this key of yours: a `FILE`, or the SHA256:… of one in the ssh-agent")
	flags.BoolVar(&w.noWait, "no-wait", false, "do not wait for the decision; collect it later with: pim-ssh cert ID")
	flags.StringVar(&w.timeout, "timeout", "", "stop waiting after a `DURATION`; the request stays (default: when it expires)")
}

// roleAndScope holds request to one argument; a host behind a blank and not behind an @ is the likeliest mistake.
func roleAndScope(cmd *cobra.Command, args []string) error {
	hint := "pim-ssh roles"
	if len(args) == 2 && !strings.Contains(args[0], "@") {
		hint = "pim-ssh request " + strings.Join(args, "@")
	}
	return one("ROLE[@SCOPE]", hint)(cmd, args)
}

func (d *desk) request(ctx context.Context, w wish) error {
	role, where, err := parseAsked(w.asked)
	if err != nil {
		return err
	}
	if w.why == "" {
		return usage(fmt.Sprintf("pim-ssh request %s --why \"…\"", w.asked), "say why: approvers decide on the reason")
	}
	c, err := d.contact(ctx)
	if err != nil {
		return err
	}
	if err := c.mayAsk(role); err != nil {
		return err
	}
	hosts, err := c.hosts(ctx)
	if err != nil {
		return err
	}
	names, err := where.expand(role, c.chain.Current().Roles[role], hosts)
	if err != nil {
		return err
	}
	body, err := c.draft(w, role, names)
	if err != nil {
		return err
	}
	if err := c.limits(body, hosts); err != nil {
		return err
	}
	return c.askOrResume(ctx, body, w)
}

// mayAsk says early what a broker would say too: no such role, or not eligible for it.
func (c *contact) mayAsk(role statement.RoleName) error {
	doc := c.chain.Current()
	if _, known := doc.Roles[role]; !known {
		return missing("pim-ssh roles", "there is no role %s%s", role, didYouMean(string(role), roleNames(doc)))
	}
	if !doc.Eligible(c.person, role) {
		return missing("pim-ssh roles", "you are not eligible for %s", role)
	}
	return nil
}

// draft makes the request's statement, its key still to be named.
func (c *contact) draft(w wish, name statement.RoleName, hosts []statement.HostName) (statement.Request, error) {
	role := c.chain.Current().Roles[name]
	length := role.Default
	if w.length != "" {
		asked, err := parseDuration(w.length)
		if err != nil {
			return statement.Request{}, err
		}
		length = asked
	}
	head, err := c.head(statement.KindRequest, freshFor)
	if err != nil {
		return statement.Request{}, err
	}
	body := statement.Request{
		Head: head, Role: name, Hosts: hosts, Duration: length, Reason: w.why, Ticket: w.ticket, Expires: head.Created.Add(role.Pending),
	}
	if w.at != "" {
		body.At, err = parseWhen(w.at, c.now())
	}
	return body, err
}

func (w wish) patience(most statement.Seconds) (time.Duration, error) {
	if w.timeout == "" {
		return most.Std(), nil
	}
	d, err := parseDuration(w.timeout)
	return min(d, most).Std(), err
}

// askOrResume asks, unless the person has asked for the same before and nobody has decided yet.
func (c *contact) askOrResume(ctx context.Context, body statement.Request, w wish) error {
	if same, err := c.pendingFor(ctx, body.Role, body.Hosts); err == nil && same != nil {
		return c.resume(ctx, *same, w)
	}
	if err := c.affordable(ctx, body); err != nil {
		return err
	}
	c.ending(body.Role)
	err := c.ask(ctx, body, w)
	if broker.KindOf(err) != broker.Conflict {
		return err
	}
	if same, _ := c.pendingFor(ctx, body.Role, body.Hosts); same != nil { // asked meanwhile, from another terminal
		return c.resume(ctx, *same, w)
	}
	return err
}

// ask names a fresh key in the request, files it, says its id and waits unless told not to.
func (c *contact) ask(ctx context.Context, body statement.Request, w wish) error {
	timeout, err := w.patience(body.Expires.Sub(body.Created))
	if err != nil {
		return err
	}
	doc := c.chain.Current()
	if body.Code, err = c.code(ctx, w.code, codeToAsk(doc, body)); err != nil {
		return err
	}
	private, key, err := c.freshKey()
	if err != nil {
		return err
	}
	body.Keys = []statement.Key{key}
	answer, proof, err := c.fileBy(ctx, body, hand{key: w.key, touch: touchToAsk(doc, body)})
	if err != nil {
		return err
	}
	pending, err := readDossier(c.pin, broker.Dossier{Request: proof}, c.clock())
	if err != nil {
		return err
	}
	if err := c.announce(pending); err != nil {
		return err
	}
	return c.wait(ctx, waiting{pending: pending, private: private, heard: &answer.Index, noWait: w.noWait, timeout: timeout})
}

// announce prints the id first, then who is waited for.
func (c *contact) announce(r reading) error {
	if c.json() {
		if err := c.term.JSON(r.asJSON(c.clock())); err != nil {
			return err
		}
	} else {
		c.term.Result("%s", r.id())
	}
	c.term.Say("%s on %s for %s", r.request.Role, joined(r.request.Hosts), span(r.request.Duration))
	if r.request.At > c.clock() {
		c.term.Say("starts at %s; judged again then", moment(r.request.At, c.clock()))
	}
	c.waitingFor(r)
	return nil
}

// leave keeps the key when waiting ended while the request lives on, and says how to go on.
func (c *contact) leave(why error, r reading, private ed25519.PrivateKey) error {
	var late *timedOut
	if !errors.As(why, &late) && !errors.Is(why, errInterrupted) && broker.KindOf(why) != broker.Unavailable {
		return nil
	}
	c.term.Warn("%s is still open: pim-ssh cert %s once it is granted, or pim-ssh withdraw %s", r.id(), short(r.id()), short(r.id()))
	return c.keepIfMade(r.stem(), private)
}

// keepIfMade keeps a fresh key, when one was made.
func (c *contact) keepIfMade(stem broker.Stem, private ed25519.PrivateKey) error {
	if private == nil {
		return nil
	}
	return c.keep(stem, private)
}

// enjoy puts the certificate in hand and says what works now.
func (c *contact) enjoy(ctx context.Context, r reading, view api.GrantView, private ed25519.PrivateKey) error {
	var where string
	var err error
	if private == nil {
		_, where, err = c.collect(ctx, r, view)
	} else {
		_, where, err = c.collectWith(ctx, *r.grant, view, private)
	}
	if err != nil {
		return errors.Join(err, c.keepIfMade(r.stem(), private))
	}
	return c.granted(r, where)
}

func (c *contact) granted(r reading, where string) error {
	now := c.clock()
	c.term.Say("%s until %s; certificate in: %s", r.grant.ID, moment(r.grant.Until, now), where)
	if r.grant.From > now {
		c.term.Say("it starts at %s; judged again then", moment(r.grant.From, now))
	}
	if r.grant.Alarm {
		c.term.Warn("nobody approved it: every alarm rings when it opens")
	}
	if c.json() {
		return c.term.JSON(r.grantAsJSON(now, ""))
	}
	for _, line := range logins(*r.grant) {
		c.term.Result("%s", line)
	}
	if where != "ssh-agent" {
		c.term.Say("no ssh-agent took the key: use pim-ssh ssh, or ssh -i %s", where)
	}
	c.term.Say("to go on longer: %s", r.extend())
	return nil
}

// logins are the ssh commands a grant makes work; for one of sudo alone, the login it unlocks sudo in.
func logins(g broker.Grant) []string {
	var out []string
	accounts := g.Accounts
	if len(accounts) == 0 {
		accounts = []statement.Account{g.Account}
	}
	for _, host := range g.Hosts {
		for _, account := range accounts {
			out = append(out, fmt.Sprintf("ssh %s@%s", account, host))
		}
	}
	return out
}

func roleNames(doc *policy.Document) []string {
	names := make([]string, 0, len(doc.Roles))
	for name := range doc.Roles {
		names = append(names, string(name))
	}
	slices.Sort(names)
	return names
}
