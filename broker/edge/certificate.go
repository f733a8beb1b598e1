package edge

import (
	"net/http"
	"slices"
	"strings"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
	"pim-ssh/certs"
)

// grant answers with one grant and, for its holder while it is live, a certificate for every key whose CertificateIssued
// is committed. Signing happens after the view: the CA may be a slow device.
func (s *Server) grant(w http.ResponseWriter, r *http.Request) (any, error) {
	var issue []certs.Spec
	answer, err := s.read(func(a asking) (any, error) {
		found, err := a.find("grant", a.state.FindGrant, true)
		if err != nil {
			return nil, err
		}
		if found.Body.Person == a.person && live(*found.Grant, a.now) {
			issue = specs(found)
			err = s.mayIssue(a)
		}
		return a.grantView(found), err
	})(w, r)
	if err != nil {
		return nil, err
	}
	view, isGrant := answer.(api.GrantView)
	if !isGrant {
		return nil, broker.Refuse(broker.Unavailable, "", "no grant to show")
	}
	for _, spec := range issue {
		line, err := certs.Sign(s.random, spec, s.ca)
		if err != nil {
			return nil, broker.Refuse(broker.Unavailable, "ask an operator to look at this broker's CA key", "no certificate: %w", err)
		}
		view.Certificates = append(view.Certificates, api.CertificateView{Key: spec.Key, Serial: spec.Serial, Certificate: strings.TrimSuffix(string(line), "\n")})
	}
	return view, nil
}

// mayIssue refuses to sign what no host would take: the CA must be one of the policy's.
func (s *Server) mayIssue(a asking) error {
	key, err := statement.KeyOf(s.ca.PublicKey())
	if err != nil || !slices.Contains(a.doc.CAKeys(), key) {
		return broker.Refuse(broker.Unavailable, "ask a steward to list it under brokers in the policy", "this broker's CA key is not in the policy")
	}
	return nil
}

// specs are the certificates that the committed events of a grant allow.
func specs(r broker.Request) []certs.Spec {
	all := make([]certs.Spec, 0, len(r.Issued))
	for _, issued := range r.Issued {
		all = append(all, certs.Spec{
			Principal: r.Grant.Stem.Principal(), Key: issued.Key, From: r.Grant.From, Until: r.Grant.Until, Serial: issued.Serial,
			KeyID: string(r.Grant.Person) + ":" + string(r.Grant.ID),
		})
	}
	return all
}
