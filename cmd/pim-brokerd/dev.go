package main

import (
	"bytes"
	"context"
	_ "embed"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/policy/policyfile"
	"pim-ssh/broker/statement"
	"pim-ssh/certs/signer"
)

//go:embed dev.yaml
var devPolicy string

// asScript is DIR/as, with which one person at one desk plays several.
//
//go:embed as.sh
var asScript []byte

// toTry is what people are told once everything is there; the hosts are not, so the story ends at the certificate.
const toTry = `to try it, in another terminal (nothing of yours is touched; the hosts are names only, so there is nothing to ssh to):
  %[1]s alice pim-ssh request db-admin@db1 --for 1h --why "first try"
and, while that waits, in a third one:
  %[1]s bob pim-ssh inbox
  %[1]s bob pim-ssh approve ID
`

// devName is the name of the one broker.
const devName = "dev"

// devPolicyLife is how long, in seconds, a dev deployment's policy lasts.
const devPolicyLife = 90 * 24 * 3600

// devPeople are the people of dev.yaml; each gets a key in DIR/keys.
var devPeople = []statement.Person{"alice", "erin", "bob", "carol", "gwen", "dave", "frank", "mallory"}

// devCommand runs a whole deployment of one broker. On standard output it says, one a line and READY=1 last: CHAIN=path of
// the chain file, ADDRESS=host:port, KEYS=directory with everybody's private key. The same lines stand in DIR/ready.
func devCommand(ctx context.Context, words *flag.FlagSet, args []string) error {
	dir := words.String("dir", "", "")
	listen := words.String("listen", "127.0.0.1:0", "")
	if _, err := parse(words, args, 0); err != nil {
		return err
	}
	if *dir == "" {
		made, err := os.MkdirTemp("", "pim-ssh-dev-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(made)
		*dir = made
	}
	whole, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	d := deployment{dir: whole}
	if err := d.prepare(*listen); err != nil {
		return err
	}
	defer d.listener.Close()
	if err := d.found(); err != nil {
		return err
	}
	c, err := config{Dir: d.brokerDir()}.complete()
	if err != nil {
		return err
	}
	return serve(ctx, c, d.listener, func() error { return d.announce(ctx) })
}

// deployment is everything dev keeps under one directory.
type deployment struct {
	dir      string
	listener net.Listener
	people   map[statement.Person]ssh.Signer
	chain    policy.Chain
}

func (d *deployment) brokerDir() string { return filepath.Join(d.dir, "broker") }
func (d *deployment) keysDir() string   { return filepath.Join(d.dir, "keys") }
func (d *deployment) chainFile() string { return filepath.Join(d.dir, "chain") }

// prepare listens (where the deployment said it would, when there is one) and reads or makes people's keys.
func (d *deployment) prepare(listen string) error {
	if data, err := os.ReadFile(d.chainFile()); err == nil {
		if _, d.chain, err = readChain(data); err != nil {
			return fmt.Errorf("%s: %w", d.chainFile(), err)
		}
		listen = d.chain.Current().Brokers[devName].Address
	}
	var err error
	if d.listener, err = net.Listen("tcp", listen); err != nil {
		return err
	}
	if err := os.MkdirAll(d.keysDir(), 0o700); err != nil {
		return err
	}
	d.people = map[statement.Person]ssh.Signer{}
	for _, person := range devPeople {
		path := filepath.Join(d.keysDir(), string(person))
		public, err := makeKey(path, string(person))
		if err != nil {
			return err
		}
		if d.people[person], err = signer.Open(path); err != nil {
			return err
		}
		if err := os.WriteFile(path+".pub", []byte(string(public)+" "+string(person)+"\n"), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// found signs the first policy and bootstraps the broker, unless that was done before.
func (d *deployment) found() error {
	if d.chain.Ref().Revision != 0 {
		return nil
	}
	proof, err := d.firstPolicy()
	if err != nil {
		return fmt.Errorf("first policy: %w", err)
	}
	if d.chain, err = policy.Genesis(proof); err != nil {
		return err
	}
	if err := bootstrap(d.brokerDir(), []statement.Proof{proof}, d.chain); err != nil {
		return err
	}
	line, err := json.Marshal(proof)
	if err != nil {
		return err
	}
	return os.WriteFile(d.chainFile(), append(line, '\n'), 0o600)
}

func (d *deployment) firstPolicy() (statement.Proof, error) {
	listed, err := makeKeys(d.brokerDir(), devName)
	if err != nil {
		return statement.Proof{}, err
	}
	fill := []string{"@address@", d.listener.Addr().String(), "@identity@", string(listed.Identity),
		"@ca@", string(listed.CA), "@log@", string(listed.Log)}
	for person, held := range d.people {
		fill = append(fill, "@"+string(person)+"@", strings.TrimSpace(string(ssh.MarshalAuthorizedKey(held.PublicKey()))))
	}
	text := strings.NewReplacer(fill...).Replace(devPolicy)
	if err := os.WriteFile(filepath.Join(d.dir, "policy.yaml"), []byte(text), 0o600); err != nil {
		return statement.Proof{}, err
	}
	doc, err := policyfile.Read("dev.yaml", []byte(text))
	if err != nil {
		return statement.Proof{}, err
	}
	payload, err := policy.Draft(policy.Chain{}.Next(doc, clock()+devPolicyLife))
	if err != nil {
		return statement.Proof{}, err
	}
	return statement.SignPayload(statement.KindPolicy, payload, d.people["dave"])
}

// announce enrols the hosts and says where everything is.
func (d *deployment) announce(ctx context.Context) error {
	if err := d.enrolHosts(ctx); err != nil {
		return err
	}
	var said bytes.Buffer
	fmt.Fprintf(&said, "CHAIN=%s\nADDRESS=%s\nKEYS=%s\nREADY=1\n", d.chainFile(), d.listener.Addr(), d.keysDir())
	as := filepath.Join(d.dir, "as")
	if err := os.WriteFile(as, asScript, 0o700); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, toTry, as)
	if _, err := os.Stdout.Write(said.Bytes()); err != nil {
		return err
	}
	ready := filepath.Join(d.dir, "ready")
	if err := os.WriteFile(ready+".tmp", said.Bytes(), 0o600); err != nil {
		return err
	}
	return os.Rename(ready+".tmp", ready)
}
