package edge

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
	"pim-ssh/certs"
	"pim-ssh/packaging/lab/forger"
)

// TestTheStoryFromRequestToCertificate is DESIGN §1 up to the door, over real TLS, with ssh-keygen as the judge of the
// certificate.
func TestTheStoryFromRequestToCertificate(t *testing.T) {
	s := newStage(t, nil, nil)
	laptop := forger.Key(t)
	ask := s.world.Ask("alice", "db-admin", "db1", 3600, laptop, nil)
	asked := s.submit(ask)
	if asked.Grant != nil || asked.Request != broker.StemOf(ask.Hash()).Request() {
		t.Fatalf("asked: %+v", asked)
	}

	waiting, err := s.as("alice").Request(t.Context(), string(asked.Request)[:8])
	s.must(err)
	if waiting.State != broker.StatePending || len(waiting.Needs) != 1 || len(waiting.Needs[0].From) != 3 {
		t.Errorf("waiting: %+v", waiting)
	}
	inbox, err := s.as("bob").Inbox(t.Context())
	s.must(err)
	if len(inbox) != 1 || inbox[0].Dossier.Request.Hash() != ask.Hash() {
		t.Fatalf("bob's inbox: %+v", inbox)
	}

	approved := s.submit(s.world.Approve("bob", inbox[0].Dossier.Request, nil))
	if approved.Grant == nil {
		t.Fatalf("approved: %+v", approved)
	}
	grant, err := s.as("alice").Grant(t.Context(), string(*approved.Grant))
	s.must(err)
	if grant.Phase != broker.PhaseActive || len(grant.Certificates) != 1 {
		t.Fatalf("grant: %+v", grant)
	}

	one := grant.Certificates[0]
	event := s.event(one.Serial)
	if issued, is := event.(*broker.CertificateIssued); !is || issued.Key != one.Key || issued.Grant != grant.ID {
		t.Errorf("event %d is %+v, want the issue of this certificate", one.Serial, event)
	}
	cert, err := certs.Parse([]byte(one.Certificate))
	s.must(err)
	s.must(certs.Check(cert, certs.Want{Principal: grant.ID.Stem().Principal(), Keys: []statement.Key{signtest.Public(laptop)}, From: grant.From, Until: grant.Until,
		CAs: s.world.Chain.Current().CAKeys()}, forger.Now()))

	said := sshKeygenSays(t, one.Certificate)
	for _, want := range []string{
		"user certificate", "Serial: " + strconv.FormatUint(one.Serial, 10), grant.ID.Stem().Principal(), "permit-pty", "Critical Options: (none)",
		`Key ID: "alice:` + string(grant.ID) + `"`, "Signing CA: ED25519 " + signtest.Public(s.world.CA).Fingerprint(),
	} {
		if !strings.Contains(said, want) {
			t.Errorf("ssh-keygen does not say %q:\n%s", want, said)
		}
	}
	for _, never := range []string{"permit-port-forwarding", "permit-agent-forwarding", "permit-X11-forwarding", "permit-user-rc", "root", "postgres"} {
		if strings.Contains(said, never) {
			t.Errorf("ssh-keygen says %q:\n%s", never, said)
		}
	}
}

// TestCertificatesAreForTheHolderOfALiveGrantOnly has everybody else, and the holder afterwards, ask for them.
func TestCertificatesAreForTheHolderOfALiveGrantOnly(t *testing.T) {
	s := newStage(t, nil, nil)
	grant := s.granted("alice", "db-admin", "db1", forger.Key(t), "bob")
	for _, person := range []statement.Person{"bob", "carol", "dave", "frank"} {
		view, err := s.as(person).Grant(t.Context(), string(grant))
		s.must(err)
		if len(view.Certificates) != 0 {
			t.Errorf("%s got %d certificates", person, len(view.Certificates))
		}
	}
	second := forger.Key(t)
	for thief, kind := range map[statement.Person]broker.Kind{"bob": broker.Denied, "mallory": broker.Missing} {
		head := s.world.Head(statement.KindCertificate, thief)
		s.refused(s.world.Sign(statement.Certificate{Head: head, Grant: string(grant), Key: signtest.Public(second)}, thief), kind)
	}
	more := s.submit(s.world.Sign(statement.Certificate{Head: s.world.Head(statement.KindCertificate, "alice"), Grant: string(grant), Key: signtest.Public(second)}, "alice"))
	view, err := s.as("alice").Grant(t.Context(), string(grant))
	s.must(err)
	if len(view.Certificates) != 2 || view.Certificates[1].Serial != more.Index || view.Certificates[1].Key != signtest.Public(second) {
		t.Errorf("after one more: %+v, want serial %d", view.Certificates, more.Index)
	}
	s.submit(s.end("alice", grant, statement.Return))
	view, err = s.as("alice").Grant(t.Context(), string(grant))
	s.must(err)
	if view.Phase != broker.PhaseReturned || len(view.Certificates) != 0 || view.EndedBy != "alice" {
		t.Errorf("after the return: %+v", view)
	}
}

// TestACAThatThePolicyDoesNotListSignsNothing is a broker whose key was replaced on disk.
func TestACAThatThePolicyDoesNotListSignsNothing(t *testing.T) {
	s := newStage(t, nil, func(server *Server, _ *Front) { server.ca = forger.Key(t) })
	grant := s.granted("alice", "db-admin", "db1", forger.Key(t), "bob")
	if _, err := s.as("alice").Grant(t.Context(), string(grant)); broker.KindOf(err) != broker.Unavailable {
		t.Errorf("got %v, want unavailable", err)
	}
}

func (s *stage) event(index uint64) broker.Event {
	s.t.Helper()
	leaves, _, err := s.node.Events(index, 1)
	s.must(err)
	if len(leaves) != 1 {
		s.t.Fatalf("no event %d", index)
	}
	event, err := broker.DecodeEvent(leaves[0])
	s.must(err)
	return event
}

func sshKeygenSays(t *testing.T, line string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "id-cert.pub")
	if err := os.WriteFile(path, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ssh-keygen", "-L", "-f", path).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	return string(out)
}
