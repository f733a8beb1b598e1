package forger

import (
	"net"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// loginTime is how long one login may take, refused or not.
const loginTime = 10 * time.Second

// Login is an attacker's own ssh client: it offers what OpenSSH's refuses to offer, in the order given, over a connection
// to some sshd, and runs `id`. It returns what came back, and an error when it was not let in.
func Login(conn net.Conn, account string, offers ...ssh.Signer) (string, error) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(loginTime)); err != nil {
		return "", err
	}
	transport, channels, requests, err := ssh.NewClientConn(conn, "", &ssh.ClientConfig{
		User: account, Auth: []ssh.AuthMethod{ssh.PublicKeys(offers...)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), // an attacker does not mind whose machine it is
	})
	if err != nil {
		return "", err
	}
	client := ssh.NewClient(transport, channels, requests)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return "", err
	}
	out, err := session.CombinedOutput("id")
	return string(out), err
}

// Offer is a certificate with the key it is for.
func Offer(t testing.TB, cert *ssh.Certificate, key ssh.Signer) ssh.Signer {
	t.Helper()
	offer, err := ssh.NewCertSigner(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return offer
}
