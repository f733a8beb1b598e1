//go:build lab

package lab

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"pim-ssh/packaging/lab/forger"
)

// TestEnforceNeedsAnAgentThatStands: without one everybody but root would be shut out.
func TestEnforceNeedsAnAgentThatStands(t *testing.T) {
	t.Parallel()
	s := newStage(t, forger.New(t, nil), nil)
	s.enrol(t, "db1", map[string]string{"tier": "db"})
	before := s.etc(t, "db1")
	for sentence, line := range map[string]string{"stopped": "systemctl stop pim-hostd.service", "not enabled": "systemctl start pim-hostd.service && systemctl disable -q pim-hostd.service"} {
		t.Run(sentence, func(t *testing.T) {
			s.root(t, "db1", line).Want(t, 0)
			got := s.root(t, "db1", "pim-hostd enforce").Want(t, 1)
			if !strings.Contains(got.Err, "try: systemctl enable --now pim-hostd.socket pim-hostd.service") {
				t.Errorf("no next step:\n%s", got.Err)
			}
		})
	}
	s.root(t, "db1", "systemctl enable -q --now pim-hostd.service").Want(t, 0)
	if diff := cmp.Diff(before, s.etc(t, "db1")); diff != "" {
		t.Errorf("a refused enforce changed /etc:\n%s", diff)
	}
}

// TestObserveGivesBackWhatEnforceTook: every file in /etc is as it was while the host observed, and a second enforce changes nothing.
func TestObserveGivesBackWhatEnforceTook(t *testing.T) {
	t.Parallel()
	s := newStage(t, forger.New(t, nil), nil)
	s.enrol(t, "db1", map[string]string{"tier": "db"})
	s.Put(t, "db1", "/etc/at.deny", 0o644, []byte("guest\nftp\n"))
	s.root(t, "db1", "pim-hostd observe").Want(t, 0)
	observing := s.etc(t, "db1")
	s.root(t, "db1", "pim-hostd enforce").Want(t, 0)
	enforcing := s.etc(t, "db1")
	if cmp.Equal(observing, enforcing) {
		t.Error("enforce wrote nothing")
	}
	s.root(t, "db1", "pim-hostd enforce").Want(t, 0)
	if diff := cmp.Diff(enforcing, s.etc(t, "db1")); diff != "" {
		t.Errorf("the second enforce changed /etc:\n%s", diff)
	}
	s.root(t, "db1", "pim-hostd observe").Want(t, 0)
	if diff := cmp.Diff(observing, s.etc(t, "db1")); diff != "" {
		t.Errorf("observe did not give back:\n%s", diff)
	}
}

// etc is every file and link under /etc with its mode, owner and content's hash.
func (s *stage) etc(t *testing.T, machine string) []string {
	t.Helper()
	out := s.root(t, machine, `cd /etc && find . -type f -printf '%p %m %u %g ' -exec sha256sum {} \; ; find . -type l -printf '%p -> %l\n'`).Want(t, 0).Out
	return strings.Split(out, "\n")
}
