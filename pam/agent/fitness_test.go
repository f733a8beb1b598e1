package agent

import (
	"strings"
	"testing"

	"pim-ssh/packaging/lab/forger"
)

func TestSudoBelowTheFloorIsNotGrantedWith(t *testing.T) {
	for said, fit := range map[string]bool{
		"visudo version 1.9.13p3\nvisudo grammar version 50\n": true,
		"visudo version 1.9.13":                                true,
		"visudo version 1.9.16p2":                              true,
		"visudo version 1.10":                                  true,
		"visudo version 2.0.0":                                 true,
		"visudo version 1.9.12p2":                              false,
		"visudo version 1.9":                                   false,
		"visudo version 1.8.31":                                false,
		"visudo version 0.99.99":                               false,
		"sudo-rs 0.2.0":                                        false,
		"":                                                     false,
	} {
		if err := checkSudo(said); (err == nil) != fit {
			t.Errorf("%q: %v", said, err)
		}
	}
}

func TestAMachineWhoseSudoIsUnfitStartsNothingAndSaysWhy(t *testing.T) {
	w := forger.New(t, nil)
	m := newMachine(t, w)
	m.enforce()
	m.visudo = "/bin/false"
	stem := m.feed(db("alice", "db1")(w))
	s := m.serve()
	s.settled()
	m.wantStands(stem, false)
	if got := newCaller(t, aliceUID, 0).say(s.pam, sudoAccount("alice")); got.Allow || !strings.Contains(got.Text, "granting has stopped") {
		t.Errorf("%+v", got)
	}
}
