package main

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"pim-ssh/broker"
	"pim-ssh/broker/policy/policyfile"
	"pim-ssh/broker/statement"
)

func policyCommand(d *desk) *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "write, sign and publish who may what"}
	cmd.AddCommand(policyInitCommand(d), policyCheckCommand(d), policyDiffCommand(d), policyTestCommand(d), policySignCommand(d), policyApplyCommand(d), policyShowCommand(d), policyLogCommand(d))
	return family(cmd)
}

func policyInitCommand(d *desk) *cobra.Command {
	return &cobra.Command{
		Use:   "init [FILE]",
		Short: "write a policy.yaml to start from",
		Long:  "Writes a small policy with every part explained, to FILE or to stdout. Fill in keys, then: pim-ssh policy check",
		Args:  atMostOne("FILE", "pim-ssh policy init policy.yaml"),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				d.term.Bytes([]byte(policyTemplate))
				return nil
			}
			return d.policyInit(args[0])
		},
	}
}

func (d *desk) policyInit(path string) error {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return usage("pim-ssh policy check "+path, "%s is there already", path)
	}
	if err != nil {
		return err
	}
	_, err = out.WriteString(policyTemplate)
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	d.term.Result("%s", path)
	d.term.Say("fill in people and keys, then: pim-ssh policy check %s", path)
	return nil
}

// policyTemplate reads well and checks badly until real keys stand in it: nobody signs a template by accident.
const policyTemplate = `# Who may what. Every key is known to pim-ssh, and an unknown one is an error. Nothing is open by default:
# "any" and "none" have to be written out. A steward signs this with: pim-ssh policy sign policy.yaml (--first for a new deployment)
version: 1
expires: 90d                 # from signing; past it nothing new starts

people:                      # keys as in ~/.ssh/id_ed25519.pub; account defaults to the name
  alice: {keys: ["ssh-ed25519 …"]}
  bob:   {keys: ["ssh-ed25519 …"]}
  carol: {keys: ["ssh-ed25519 …"]}
  dave:  {keys: ["ssh-ed25519 …"]}

groups:
  engineers: [alice]
  approvers: [bob, carol]

stewards:  {threshold: 1, people: [dave]}     # how many distinct people must sign a revision
operators: [dave]                             # may enrol hosts and revoke
auditors:  [carol]                            # may read everything

brokers:                                      # printed by: pim-brokerd init
  b1: {address: "b1:7443", identity: "ssh-ed25519 …", ca: "ssh-ed25519 …", log: "ssh-ed25519 …"}

roles:
  db-admin:
    hosts: {labels: {tier: db}}               # or {names: [db1]}, or any
    accounts: [postgres]                      # ssh logins
    sudo:
      - {as: root, commands: ["/usr/bin/systemctl restart postgresql"]}
      - {as: postgres, commands: [ALL]}
    eligible: [engineers]                     # who may ask
    approvals: {count: 1, from: [approvers]}  # or a list of those, all needed; or none: a security key's touch then opens it
    longest: 4h
    default: 1h
    pending: 24h                              # an unanswered request lives this long
    offline: {grace: 15m}                     # how long a cut-off host goes on starting: strict, grace or window
    # second factors, dated eligibility, tickets, budgets, hours and more: policy.yaml(5), and the tiers in its example
`

func readPolicyFile(path string) (policyfile.File, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return policyfile.File{}, invalid("pim-ssh policy init policy.yaml", "%v", err)
	}
	return policyfile.Parse(path, text)
}

// appliedJSON is what policy apply prints with -o json.
type appliedJSON struct {
	Policy statement.PolicyRef `json:"policy"`
	Filed  int                 `json:"filed"` // revisions that were new to the brokers
}

func policyApplyCommand(d *desk) *cobra.Command {
	return &cobra.Command{
		Use:   "apply CHAINFILE",
		Short: "hand signed revisions to the brokers; they are in force at once",
		Args:  one("CHAINFILE", "pim-ssh policy sign policy.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return d.policyApply(cmd.Context(), args[0])
		},
	}
}

func (d *desk) policyApply(ctx context.Context, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return invalid("pim-ssh policy sign policy.yaml", "%v", err)
	}
	proofs, err := parseChainFile(data)
	if err != nil {
		return invalid("pim-ssh policy sign policy.yaml", "%s is no chain file: %v", path, err)
	}
	c, err := d.contact(ctx)
	if err != nil {
		return err
	}
	held, err := c.posts.Policies(ctx, 0)
	if err != nil {
		return err
	}
	after, err := c.forward(c.pin, proofs)
	if err != nil {
		return err
	}
	filed := 0
	for _, proof := range after.chain.Proofs()[min(len(held), len(after.chain.Proofs())):] {
		if _, err := c.posts.Submit(ctx, proof); err != nil {
			return err
		}
		filed++
	}
	if d.json() {
		return d.term.JSON(appliedJSON{after.chain.Ref(), filed})
	}
	d.term.Result("%d", after.chain.Ref().Revision)
	if filed == 0 {
		d.term.Say("the brokers had revision %d already", after.chain.Ref().Revision)
		return nil
	}
	d.term.Say("revision %d is in force", after.chain.Ref().Revision)
	return nil
}

// reachOrPinned is a contact, or what was pinned when no broker answers: reading the policy needs none.
func (d *desk) reachOrPinned(ctx context.Context) (pin, error) {
	c, err := d.contact(ctx)
	if err == nil {
		return c.pin, nil
	}
	if broker.KindOf(err) != broker.Unavailable {
		return pin{}, err
	}
	d.term.Warn("no broker answers: this is the newest revision seen here")
	return d.pinned()
}
