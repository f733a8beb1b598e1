package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// judgement is what was typed after approve or deny.
type judgement struct {
	verdict statement.Verdict
	why     string
	yes     bool
	code    string   // of a second factor
	key     string   // which of the person's keys signs
	length  string   // narrower, with approve
	hosts   []string // fewer, with approve
	valid   string   // how long the yes waits for others, with approve
}

// decisionJSON is what approve and deny print with -o json.
type decisionJSON struct {
	Request broker.RequestID  `json:"request"`
	Verdict statement.Verdict `json:"verdict"`
	Index   uint64            `json:"index"`
	Grant   *broker.GrantID   `json:"grant"` // null while approvals are missing
	Needs   []broker.Need     `json:"needs"` // what is missing still
}

func approveCommand(d *desk) *cobra.Command {
	j := judgement{verdict: statement.Approve}
	cmd := decisionCommand(d, &j, "approve ID", "say yes to a request, with your own key")
	cmd.Flags().StringVar(&j.length, "for", "", "approve a window of no more than `DURATION`")
	cmd.Flags().StringSliceVar(&j.hosts, "hosts", nil, "approve only for these `HOST,…` of the hosts")
	cmd.Flags().StringVar(&j.valid, "valid", "", "let the yes wait `DURATION` for the others (default: until the request expires)")
	cmd.Flags().StringVar(&j.code, "totp", "", "a `CODE` of your authenticator app, or a recovery code, where the role wants one")
	return cmd
}

func denyCommand(d *desk) *cobra.Command {
	return decisionCommand(d, &judgement{verdict: statement.Deny}, "deny ID", "say no to a request; that ends it")
}

func decisionCommand(d *desk, j *judgement, use, short string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Long: "Shows the request exactly as its signed bytes say, verified here, asks, and signs a decision on those\n" +
			"bytes and no others. Without a terminal --yes is needed. Approving may leave out hosts or time, never add any.",
		Args:              one("ID", "pim-ssh inbox"),
		ValidArgsFunction: d.completeIDs(inboxRequests),
		RunE: func(cmd *cobra.Command, args []string) error {
			return d.decide(cmd.Context(), args[0], *j)
		},
	}
	cmd.Flags().StringVar(&j.why, "why", "", "a reason, in a `TEXT` that the asker reads")
	cmd.Flags().StringVar(&j.key, "key", "", "sign with this key of yours: a `FILE`, or the SHA256:… of one in the ssh-agent")
	cmd.Flags().BoolVarP(&j.yes, "yes", "y", false, "do not ask")
	return cmd
}

func (d *desk) decide(ctx context.Context, id string, j judgement) error {
	c, err := d.contact(ctx)
	if err != nil {
		return err
	}
	r, view, err := c.requestByID(ctx, id)
	if broker.KindOf(err) == broker.Missing {
		return missing("pim-ssh inbox", "%v", err) // status, which brokers name, lists one's own
	}
	if err != nil {
		return err
	}
	if err := r.mayDecide(c.pin, c.clock()); err != nil {
		return err
	}
	if err := c.mayApprove(r, j); err != nil {
		return err
	}
	body, err := c.decision(r, j)
	if err != nil {
		return err
	}
	if agreed, err := c.agree(ctx, r, view, body, j.yes); err != nil || !agreed {
		return err
	}
	by, err := c.seal(ctx, r, &body, j)
	if err != nil {
		return err
	}
	answer, _, err := c.fileBy(ctx, body, by)
	if broker.KindOf(err) == broker.Conflict {
		return c.overtaken(ctx, r, err)
	}
	if err != nil {
		return err
	}
	return c.decidedNow(ctx, r, j, answer)
}

// mayApprove names early what would keep a yes from counting.
func (c *contact) mayApprove(r reading, j judgement) error {
	role := c.chain.Current().Roles[r.request.Role]
	if j.verdict == statement.Approve && role.ApproverReason && strings.TrimSpace(j.why) == "" {
		return usage(fmt.Sprintf("pim-ssh approve %s --why \"…\"", short(r.id())), "%s wants a reason of its approvers too", r.request.Role)
	}
	return nil
}

// seal completes a decision that was agreed to: reading it may have taken a while. A yes waits for the others until the request
// expires, unless the person says for how long.
func (c *contact) seal(ctx context.Context, r reading, body *statement.Decision, j judgement) (hand, error) {
	role := c.chain.Current().Roles[r.request.Role]
	approves := j.verdict == statement.Approve
	var err error
	life := freshFor
	if approves {
		if body.Code, err = c.code(ctx, j.code, codeToApprove(c.chain.Current(), r.request.Role)); err != nil {
			return hand{}, err
		}
		if life, err = r.validFor(j.valid, c.clock()); err != nil {
			return hand{}, err
		}
	}
	by := hand{key: j.key}
	if approves && role.Factors.Approve == policy.SecurityKey {
		by.touch = verified
	}
	body.Head, err = c.head(statement.KindDecision, life)
	return by, err
}

// validFor is how long a yes waits for the others.
func (r reading) validFor(typed string, now statement.Time) (statement.Seconds, error) {
	most := max(freshFor, r.request.Expires.Sub(now))
	if typed == "" {
		return most, nil
	}
	asked, err := parseDuration(typed)
	return min(asked, most), err
}

// overtaken says who decided what, and how, while somebody else was reading.
func (c *contact) overtaken(ctx context.Context, r reading, why error) error {
	again, err := c.look(ctx, r.id())
	if err != nil {
		return why
	}
	if how := again.settlement(c.clock()); how != "" {
		return &broker.Error{Kind: broker.Conflict, Msg: how, Hint: "pim-ssh show " + short(r.id())}
	}
	return why
}

// decidedNow says what the decision made, and what is missing still.
func (c *contact) decidedNow(ctx context.Context, r reading, j judgement, answer api.Answer) error {
	if j.verdict == statement.Approve && answer.Grant == nil {
		if again, err := c.look(ctx, r.id()); err == nil {
			r = again
		}
	}
	if c.json() {
		said := decisionJSON{Request: r.id(), Verdict: j.verdict, Index: answer.Index, Grant: answer.Grant}
		if answer.Grant == nil && j.verdict == statement.Approve {
			said.Needs = r.needs
		}
		return c.term.JSON(said)
	}
	c.term.Result("%s", r.id())
	switch {
	case j.verdict == statement.Deny:
		c.term.Say("denied")
	case answer.Grant != nil:
		c.term.Say("approved; %s has %s", r.request.Person, *answer.Grant)
	default:
		c.term.Say("approved; more approvals are needed")
		c.waitingFor(r)
	}
	return nil
}

// decision is the statement to sign, on the bytes that were verified and are shown.
func (c *contact) decision(r reading, j judgement) (statement.Decision, error) {
	body := statement.Decision{Request: r.hash, Verdict: j.verdict, Reason: j.why}
	if j.length != "" {
		length, err := parseDuration(j.length)
		if err != nil {
			return body, err
		}
		if length > r.request.Duration {
			return body, usage("--for "+span(r.request.Duration), "%s were asked for: approve that or less", span(r.request.Duration))
		}
		body.Duration = length
	}
	if len(j.hosts) > 0 {
		hosts, err := fewer(r.request.Hosts, j.hosts)
		if err != nil {
			return body, err
		}
		body.Hosts = hosts
	}
	return body, nil
}

// fewer is asked cut down to the hosts named, all of which must be among them.
func fewer(asked []statement.HostName, named []string) ([]statement.HostName, error) {
	left := map[statement.HostName]bool{}
	for _, name := range named {
		left[statement.HostName(name)] = true
	}
	var kept []statement.HostName
	for _, host := range asked {
		if left[host] {
			kept = append(kept, host)
		}
		delete(left, host)
	}
	for name := range left {
		return nil, usage("--hosts "+joined(asked), "host %s was not asked for", name)
	}
	return kept, nil
}

// agree shows the request and asks; with --yes it shows it and goes on.
func (c *contact) agree(ctx context.Context, r reading, view api.RequestView, body statement.Decision, yes bool) (bool, error) {
	card := c.fullCard(r, view)
	if yes {
		c.term.TalkCard(card)
		return true, nil
	}
	agreed, err := c.term.Confirm(ctx, card, r.question(body))
	if err == nil && !agreed {
		c.term.Say("nothing was signed")
		return false, &broker.Error{Kind: broker.Invalid, Msg: "not " + map[statement.Verdict]string{statement.Approve: "approved", statement.Deny: "denied"}[body.Verdict]}
	}
	return agreed, err
}

func (r reading) question(body statement.Decision) string {
	if body.Verdict == statement.Deny {
		return fmt.Sprintf("deny %s to %s?", r.request.Role, r.request.Person)
	}
	length, hosts := r.request.Duration, r.request.Hosts
	if body.Duration > 0 {
		length = body.Duration
	}
	if body.Hosts != nil {
		hosts = body.Hosts
	}
	where := joined(hosts)
	if len(hosts) > 3 {
		where = fmt.Sprintf("%d hosts", len(hosts))
	}
	return fmt.Sprintf("approve %s on %s for %s to %s?", r.request.Role, where, span(length), r.request.Person)
}
