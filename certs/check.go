package certs

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
)

// MaxLine is the longest certificate line in bytes that Parse reads: rsa of 8192 bits for key and CA fits twice.
const MaxLine = 12 << 10

// Want is what a judge calls for. Its zero value fits no certificate.
type Want struct {
	Principal string          // exactly this one, pim-g-<stem>
	Keys      []statement.Key // the holder's, named by the holder's signatures
	From      statement.Time  // the grant's window; the certificate may be valid in it and nowhere else
	Until     statement.Time
	CAs       []statement.Key // of the brokers in the current policy
}

// Parse reads one line "type base64", with or without a newline at its end: exactly one spelling per certificate,
// no options, no comment. What it returns is not yet believed: that takes Check.
func Parse(line []byte) (*ssh.Certificate, error) {
	if len(line) > MaxLine {
		return nil, fmt.Errorf("certificate: %d bytes: at most %d", len(line), MaxLine)
	}
	name, text, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
	if !ok {
		return nil, errors.New("certificate: want type and base64")
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	public, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	cert, ok := public.(*ssh.Certificate)
	if !ok {
		return nil, fmt.Errorf("certificate: a plain key of type %s is none", public.Type())
	}
	// Judged before Marshal: the canonical form of a foreign key type is nobody's to write.
	if _, err := statement.KeyOf(cert.Key); err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if _, err := statement.KeyOf(cert.SignatureKey); err != nil {
		return nil, fmt.Errorf("certificate: ca: %w", err)
	}
	if cert.Type() != string(name) || !bytes.Equal(cert.Marshal(), blob) || bytes.ContainsAny(text, "\r\n") {
		return nil, errors.New("certificate: not in canonical form")
	}
	return cert, nil
}

// Check decides whether a certificate is what a judge calls for at this instant. A caller that holds a certificate
// before its window opens passes the window's start.
func Check(cert *ssh.Certificate, want Want, now statement.Time) error {
	if cert == nil || cert.Key == nil || cert.SignatureKey == nil || cert.Signature == nil {
		return errors.New("certificate: none given")
	}
	if err := want.checkWords(cert); err != nil {
		return err
	}
	ca, err := statement.KeyOf(cert.SignatureKey)
	if err != nil {
		return fmt.Errorf("certificate: ca: %w", err)
	}
	if !slices.Contains(want.CAs, ca) {
		return fmt.Errorf("certificate: signed by %s, which is no ca of ours", ca.Fingerprint())
	}
	if err := checkAlgorithm(ca, cert.Signature); err != nil {
		return err
	}
	if now < statement.Time(cert.ValidAfter) || now < want.From {
		return fmt.Errorf("certificate: not valid before %s", statement.Time(cert.ValidAfter))
	}
	if now >= statement.Time(cert.ValidBefore) || now >= want.Until {
		return fmt.Errorf("certificate: expired at %s", statement.Time(cert.ValidBefore))
	}
	checker := ssh.CertChecker{Clock: func() time.Time { return now.Std() }}
	if err := checker.CheckCert(want.Principal, cert); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	return nil
}

// checkWords holds what a certificate says to what is wanted; the signature and the clock are Check's.
func (w Want) checkWords(cert *ssh.Certificate) error {
	if err := checkPrincipal(w.Principal); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if cert.CertType != ssh.UserCert {
		return fmt.Errorf("certificate: type %d: want a user certificate", cert.CertType)
	}
	if len(cert.ValidPrincipals) != 1 || cert.ValidPrincipals[0] != w.Principal {
		return fmt.Errorf("certificate: principals %.120q: want exactly %s", cert.ValidPrincipals, w.Principal)
	}
	key, err := statement.KeyOf(cert.Key)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if !slices.Contains(w.Keys, key) {
		return fmt.Errorf("certificate: for %s, a key its holder never named", key.Fingerprint())
	}
	if len(cert.CriticalOptions) != 0 {
		return errors.New("certificate: carries critical options")
	}
	for name, value := range cert.Extensions {
		if name != permitPTY || value != "" {
			return errors.New("certificate: carries extensions beyond permit-pty")
		}
	}
	if len(cert.Reserved) != 0 {
		return errors.New("certificate: carries data in its reserved field")
	}
	if w.From <= 0 || w.Until <= w.From {
		return fmt.Errorf("certificate: from %s until %s is no window", w.From, w.Until)
	}
	if cert.ValidAfter < uint64(w.From) || cert.ValidBefore > uint64(w.Until) || cert.ValidAfter >= cert.ValidBefore {
		return fmt.Errorf("certificate: valid outside the window from %s until %s", w.From, w.Until)
	}
	return nil
}

// checkAlgorithm refuses ssh-rsa (sha1) and whatever follows a plain signature. A CA's own touch says nothing about
// the person who is there now, so flags of a security key are not looked at: as in OpenSSH.
func checkAlgorithm(ca statement.Key, sig *ssh.Signature) error {
	fits := []string{ca.Type()}
	if ca.Type() == ssh.KeyAlgoRSA {
		fits = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	if !slices.Contains(fits, sig.Format) {
		return fmt.Errorf("certificate: signature algorithm %.40q does not fit a ca of type %s", sig.Format, ca.Type())
	}
	if !ca.SecurityKey() && len(sig.Rest) != 0 {
		return errors.New("certificate: data after the signature")
	}
	return nil
}
