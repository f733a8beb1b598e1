package main

import (
	"context"
	"crypto/ed25519"
	"fmt"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

// certJSON is what `cert -o json` prints.
type certJSON struct {
	Grant       broker.GrantID `json:"grant"`
	Where       string         `json:"where"` // "ssh-agent" or the path of the private key
	Until       statement.Time `json:"until"`
	Certificate string         `json:"certificate"`
}

func certCommand(d *desk) *cobra.Command {
	return &cobra.Command{
		Use:   "cert ID",
		Short: "make sure a grant's certificate is where ssh finds it",
		Long: "Collects the certificate of a granted request, checks it against what was granted and loads it into the\n" +
			"ssh-agent until the window ends (or into the runtime directory when there is no ssh-agent). When the key\n" +
			"made for the request is gone, a new one is made and signed for. Prints the public certificate.",
		Args:              one("ID", "pim-ssh status"),
		ValidArgsFunction: d.completeIDs(ownGrants),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := d.contact(cmd.Context())
			if err != nil {
				return err
			}
			return c.cert(cmd.Context(), args[0])
		},
	}
}

func (c *contact) cert(ctx context.Context, id string) error {
	r, view, err := c.grant(ctx, id)
	if err != nil {
		return err
	}
	certificate, where, err := c.collect(ctx, r, view)
	if err != nil {
		return err
	}
	line := string(ssh.MarshalAuthorizedKey(certificate))
	if c.json() {
		return c.term.JSON(certJSON{Grant: r.grantID(), Where: where, Until: r.grant.Until, Certificate: line[:len(line)-1]})
	}
	c.term.Bytes([]byte(line))
	c.term.Say("%s is usable until %s, from: %s", r.grantID(), moment(r.grant.Until, c.clock()), where)
	return nil
}

// grant fetches one grant and verifies it; a dossier that proves no grant is an error.
func (c *contact) grant(ctx context.Context, id string) (reading, api.GrantView, error) {
	if err := checkID(id); err != nil {
		return reading{}, api.GrantView{}, err
	}
	client, err := c.as(ctx)
	if err != nil {
		return reading{}, api.GrantView{}, err
	}
	view, err := client.Grant(ctx, id)
	if err != nil {
		return reading{}, api.GrantView{}, err
	}
	r, err := c.read(view.Dossier, id)
	if err != nil {
		return reading{}, api.GrantView{}, err
	}
	if r.grant == nil {
		return reading{}, api.GrantView{}, missing("pim-ssh show "+short(r.id()), "%s is no grant: what the broker shows does not prove one", r.id())
	}
	return r, view, nil
}

// read verifies a dossier that was asked for by an id.
func (c *contact) read(d broker.Dossier, id string) (reading, error) {
	r, err := readDossier(c.pin, d, c.clock())
	if err != nil {
		return reading{}, denied("decide nothing on it; tell an operator", "what the broker shows of %s does not verify: %v", id, err)
	}
	return r, r.checkAsked(id)
}

// collect makes sure the holder of a live grant has key and certificate in hand.
func (c *contact) collect(ctx context.Context, r reading, view api.GrantView) (*ssh.Certificate, string, error) {
	if err := c.usable(r); err != nil {
		return nil, "", err
	}
	if certificate, where := c.inHand(c.pin, *r.grant); certificate != nil {
		return certificate, where, nil
	}
	private, err := c.kept(r.stem())
	if err != nil {
		return nil, "", err
	}
	if private == nil {
		return c.collectNewKey(ctx, r)
	}
	return c.collectWith(ctx, *r.grant, view, private)
}

// usable reports why the person cannot use the grant, now or once it starts.
func (c *contact) usable(r reading) error {
	now := c.clock()
	switch phase := r.grant.Phase(now); {
	case r.grant.Person != c.person:
		return denied("pim-ssh status", "%s is %s's", r.grantID(), r.grant.Person)
	case phase == broker.PhaseWaiting || phase == broker.PhaseActive:
		return nil
	default:
		return &broker.Error{Kind: broker.Expired, Msg: string(r.grantID()) + " is " + string(phase), Hint: fmt.Sprintf("pim-ssh request %s@%s --why …", r.grant.Role, joined(r.grant.Hosts))}
	}
}

func (c *contact) collectWith(ctx context.Context, grant broker.Grant, view api.GrantView, private ed25519.PrivateKey) (*ssh.Certificate, string, error) {
	key, err := keyOf(private)
	if err != nil {
		return nil, "", err
	}
	certificate, err := c.checked(grant, view.Certificates, key, c.clock())
	if err != nil {
		return nil, "", err
	}
	if err := c.keepDossier(grant.Stem, view.Dossier); err != nil {
		return nil, "", err
	}
	if err := c.tidy(ctx); err != nil {
		c.term.Warn("certificates of grants that are over stay in the ssh-agent: %s", err)
	}
	where, err := c.hand(grant, private, certificate)
	return certificate, where, err
}

// collectNewKey signs for a new key under the grant: the one named in the request is not on this machine.
func (c *contact) collectNewKey(ctx context.Context, r reading) (*ssh.Certificate, string, error) {
	private, key, err := c.freshKey()
	if err != nil {
		return nil, "", err
	}
	head, err := c.head(statement.KindCertificate, freshFor)
	if err != nil {
		return nil, "", err
	}
	named := statement.Certificate{Head: head, Grant: string(r.grantID()), Key: key}
	if _, _, err := c.fileBy(ctx, named, hand{touch: touchToCertify(c.chain.Current(), r.request)}); err != nil {
		return nil, "", err
	}
	again, view, err := c.grant(ctx, string(r.grantID()))
	if err != nil {
		return nil, "", err
	}
	return c.collectWith(ctx, *again.grant, view, private)
}
