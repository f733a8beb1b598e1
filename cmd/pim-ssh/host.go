package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"pim-ssh/broker/statement"
)

func hostCommand(d *desk) *cobra.Command {
	cmd := &cobra.Command{Use: "host", Short: "enrol hosts, and see which are"}
	cmd.AddCommand(hostTokenCommand(d), hostListCommand(d))
	return family(cmd)
}

// tokenFile is what an operator hands to one machine: the policy chain as this CLI verified it, the signed token, and
// the seed of the one-time key that the token names. Whoever has the file can enrol as that host until it expires.
type tokenFile struct {
	Chain  []statement.Proof `json:"chain"`
	Token  statement.Proof   `json:"token"`
	Secret []byte            `json:"secret"` // base64 of 32 bytes
}

// hostWish is what was typed after `host token`.
type hostWish struct {
	name, expires, file string
	labels, addresses   []string
}

func hostTokenCommand(d *desk) *cobra.Command {
	w := hostWish{}
	cmd := &cobra.Command{
		Use:   "token NAME",
		Short: "make the file with which one machine enrols under NAME",
		Long: "Signs, with your own key, that a machine may enrol as NAME with these labels and addresses, and writes the\n" +
			"token to a file that only you can read. Move it to the machine and run there: pim-hostd enrol FILE",
		Example: "  pim-ssh host token db1 --label tier=db --address db1 -o db1.token",
		Args:    one("NAME", "pim-ssh host token db1 --label tier=db"),
		RunE: func(cmd *cobra.Command, args []string) error {
			w.name = args[0]
			return d.hostToken(cmd.Context(), w)
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&w.labels, "label", nil, "a label `k=v` that roles select hosts by; repeat it for more")
	flags.StringSliceVar(&w.addresses, "address", nil, "the `ADDRESS` that ssh dials: name, IP address or [host]:port; repeat it for more (default: NAME)")
	flags.StringVar(&w.expires, "expires", "24h", "the `DURATION` that the machine has to enrol")
	flags.VarP(outputFlag{format: &d.format, file: &w.file}, "output", "o", "the file to write (default: NAME.token); json or text: how to print the result")
	return cmd
}

func (d *desk) hostToken(ctx context.Context, w hostWish) error {
	body, err := w.body()
	if err != nil {
		return err
	}
	life, err := parseDuration(w.expires)
	if err != nil {
		return err
	}
	c, err := d.contact(ctx)
	if err != nil {
		return err
	}
	if !c.chain.Current().Operator(c.person) {
		return denied("ask one of: "+joined(c.chain.Current().Operators), "you are no operator")
	}
	file, err := c.token(ctx, body, life)
	if err != nil {
		return err
	}
	path := w.file
	if path == "" {
		path = w.name + ".token"
	}
	if err := writeSecret(path, file); err != nil {
		return err
	}
	if d.json() {
		return d.term.JSON(map[string]any{"name": body.Name, "file": path, "expires": d.clock().Add(life)})
	}
	d.term.Result("%s", path)
	d.term.Say("%s may enrol until %s; move the file there and run: pim-hostd enrol %s", body.Name, moment(d.clock().Add(life), d.clock()), filepath.Base(path))
	return nil
}

// body reads name, labels and addresses strictly, before anybody is asked anything.
func (w hostWish) body() (statement.HostToken, error) {
	name, err := statement.ParseHostName(w.name)
	if err != nil {
		return statement.HostToken{}, usage("pim-ssh host token db1 --label tier=db", "%v", err)
	}
	labels := map[string]string{}
	for _, label := range w.labels {
		key, value, ok := strings.Cut(label, "=")
		if _, twice := labels[key]; !ok || twice {
			return statement.HostToken{}, usage("--label tier=db", "label %q: want k=v, each name once", label)
		}
		labels[key] = value
	}
	if err := statement.CheckLabels(labels); err != nil {
		return statement.HostToken{}, usage("--label tier=db", "%v", err)
	}
	addresses := slices.Compact(slices.Sorted(slices.Values(w.addresses)))
	if len(addresses) == 0 {
		addresses = []string{string(name)}
	}
	return statement.HostToken{Name: name, Labels: labels, Addresses: addresses}, nil
}

// token signs the body with a fresh one-time key in it, and packs the file.
func (c *contact) token(ctx context.Context, body statement.HostToken, life statement.Seconds) (tokenFile, error) {
	private, key, err := c.freshKey()
	if err != nil {
		return tokenFile{}, err
	}
	if body.Head, err = c.head(statement.KindHostToken, life); err != nil {
		return tokenFile{}, err
	}
	body.Key, body.Expires = key, body.Created.Add(life)
	proof, err := c.sign(ctx, body, hand{})
	return tokenFile{Chain: c.chain.Proofs(), Token: proof, Secret: private.Seed()}, err
}

// writeSecret writes a new file that only its owner can read, and never over one that is there.
func writeSecret(path string, file tokenFile) error {
	data, err := json.Marshal(file)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return usage("choose another with -o, or remove it", "%s is there already", path)
	}
	if err != nil {
		return err
	}
	_, err = out.Write(append(data, '\n'))
	return errors.Join(err, out.Sync(), out.Close())
}

// hostJSON is one line of `host list -o json`.
type hostJSON struct {
	Name       statement.HostName `json:"name"`
	Labels     map[string]string  `json:"labels"`
	Addresses  []string           `json:"addresses"`
	Operator   statement.Person   `json:"operator"` // who signed its token
	EnrolledAt statement.Time     `json:"enrolled_at"`
	HostKeys   []statement.Key    `json:"host_keys"`
}

func hostListCommand(d *desk) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "list the enrolled hosts, as their tokens say",
		Args:  none("pim-ssh host list"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := d.contact(cmd.Context())
			if err != nil {
				return err
			}
			return c.hostList(cmd.Context())
		},
	}
}

func (c *contact) hostList(ctx context.Context) error {
	hosts, err := c.hosts(ctx)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		host := hosts[name]
		if c.json() {
			if err := c.term.JSON(host.asJSON()); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, []string{
			string(name), labelText(host.token.Labels), strings.Join(host.token.Addresses, ","), string(host.token.Person), host.host.Created.String(),
		})
	}
	if len(rows) > 0 {
		c.term.Table([]string{"HOST", "LABELS", "ADDRESSES", "OPERATOR", "ENROLLED"}, rows)
	} else if !c.json() {
		c.term.Say("no host is enrolled; make a token with: pim-ssh host token NAME")
	}
	return nil
}

func (e enrolled) asJSON() hostJSON {
	return hostJSON{
		Name: e.token.Name, Labels: e.token.Labels, Addresses: e.token.Addresses, Operator: e.token.Person,
		EnrolledAt: e.host.Created, HostKeys: e.host.HostKeys,
	}
}

func labelText(labels map[string]string) string {
	var words []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		words = append(words, fmt.Sprintf("%s=%s", key, labels[key]))
	}
	return strings.Join(words, ",")
}
