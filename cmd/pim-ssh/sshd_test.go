package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

// enrol TOKENFILE HOSTKEY.pub enrols a machine as pim-hostd would: the token's key and a new identity sign.
func (s *stage) enrol(ts *testscript.TestScript, _ bool, args []string) {
	data, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	var file tokenFile
	ts.Check(statement.DecodeStrict(data, &file))
	chain, err := walkAll(file.Chain)
	ts.Check(err)
	opened, err := statement.Open(file.Token)
	ts.Check(err)
	token := opened.Body.(statement.HostToken)
	once, err := ssh.NewSignerFromKey(seedKey(file.Secret))
	ts.Check(err)
	identity, err := signerFrom(filepath.Join(s.work, args[1]+".identity"))
	ts.Check(err)
	hostKey := publicKeyIn(ts, args[1])
	head := token.Head
	head.Kind, head.Person, head.Host = statement.KindEnrolment, "", token.Name
	head.Created = statement.TimeOf(time.Now())
	head.NotAfter = head.Created.Add(freshFor)
	identityKey, err := statement.KeyOf(identity.PublicKey())
	ts.Check(err)
	proof, err := statement.Sign(statement.Enrolment{
		Head: head, Token: file.Token, MachineID: statement.HashOf([]byte(token.Name)), Identity: identityKey, HostKeys: []statement.Key{hostKey},
	}, once, identity)
	ts.Check(err)
	client, err := api.NewClient(api.Config{Policy: chain.Current()})
	ts.Check(err)
	defer client.Close()
	_, err = client.Submit(context.Background(), proof)
	ts.Check(err)
}

func publicKeyIn(ts *testscript.TestScript, path string) statement.Key {
	data, err := os.ReadFile(ts.MkAbs(path))
	ts.Check(err)
	public, _, _, _, err := ssh.ParseAuthorizedKey(data)
	ts.Check(err)
	key, err := statement.KeyOf(public)
	ts.Check(err)
	return key
}

// sshd start|allow PRINCIPAL: a real sshd on $PORT with the host key ./hostkey, which lets root in with a certificate of the
// deployment's CA that names an allowed principal. The module and the agent have no part in it: that is the lab's work.
func (s *stage) sshd(ts *testscript.TestScript, _ bool, args []string) {
	principals := filepath.Join(s.work, "principals")
	if args[0] == "allow" {
		ts.Check(os.WriteFile(principals, []byte(args[1]+"\n"), 0o600))
		return
	}
	port, err := freePort()
	ts.Check(err)
	ts.Setenv("PORT", port)
	ts.Check(os.MkdirAll("/run/sshd", 0o755))
	config := fmt.Sprintf("ListenAddress 127.0.0.1:%s\nHostKey %s\nPidFile none\nUsePAM no\nStrictModes no\nAuthorizedKeysFile none\n"+
		"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nTrustedUserCAKeys %s\nAuthorizedPrincipalsFile %s\n",
		port, ts.MkAbs("hostkey"), ts.MkAbs("ca.pub"), principals)
	path := filepath.Join(s.work, "sshd_config")
	ts.Check(os.WriteFile(path, []byte(config), 0o600))
	var said bytes.Buffer
	cmd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", path)
	cmd.Stderr = &said
	ts.Check(cmd.Start())
	s.stops = append(s.stops, func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	err = soon(func() bool {
		connection, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			connection.Close()
		}
		return err == nil
	})
	if err != nil {
		ts.Fatalf("sshd: %v", err)
	}
}

func seedKey(seed []byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(seed) }

// signerFrom makes a new identity key, as a machine does on its first enrolment.
func signerFrom(path string) (ssh.Signer, error) {
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("ssh-keygen: %w: %s", err, out)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ssh.ParsePrivateKey(data)
}
