package edge

import (
	"strings"
	"testing"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/broker/totp"
)

// sealed is what the record holds of a seed: auditors, operators, and whoever has a backup can copy it.
func (j *judging) sealed(seed totp.Seed) []byte {
	j.t.Helper()
	sealed, err := totp.Seal(seed, j.world.Chain.Current().Brokers["b1"].Identity)
	j.must(err)
	return sealed
}

// Somebody files alice's sealed seed as their own new one, or as hers with her stolen key, and guesses its first code for as long as
// they like: no answer and no event may tell a right code from a wrong one, or count as nothing.
func TestThreatMFAASealedSeedIsNoOracleForItsCodes(t *testing.T) {
	j := newJudging(t, withCodes)
	seed := j.enrol("alice")
	copied := j.sealed(seed)
	for _, person := range []statement.Person{"erin", "alice"} {
		t.Run(string(person), func(t *testing.T) {
			answers := map[string]bool{}
			before := j.index()
			for _, code := range []string{j.code(seed), j.wrong(seed)} {
				p := j.enrolment(person, seed, j.server.now(), func(f *statement.Factor) { f.Sealed, f.First = copied, code })
				_, err := j.as("").Submit(t.Context(), p)
				if err == nil {
					t.Fatal("the copied seed was taken")
				}
				answers[strings.ReplaceAll(err.Error(), code, "")] = true
			}
			if len(answers) != 1 {
				t.Errorf("a right code and a wrong one are told apart: %v", answers)
			}
			for _, refused := range j.refusals(before) {
				if refused.Judged.Code != nil {
					t.Errorf("the record says %+v", *refused.Judged.Code)
				}
			}
		})
	}
}

// A recovery code that is typed while codes are locked, or where none is wanted, stands in the record in clear for whoever reads it:
// it must not serve afterwards.
func TestThreatMFAARecoveryCodeInTheRecordServesNoMore(t *testing.T) {
	j := newJudging(t, withCodes)
	seed := j.enrol("alice")
	p := j.world.Ask("alice", "db-admin", "db1", 600, j.world.People["alice"], func(r *statement.Request) { r.Code = seed.Recovery[2] })
	_, _ = j.as("").Submit(t.Context(), p) // taken or refused: db-admin wants no code
	j.says(j.with("alice", seed.Recovery[2]), "recovery code 3 was used before")
	for range broker.MaxFailures {
		j.says(j.with("alice", j.wrong(seed)), "the code is wrong")
	}
	before := j.index()
	j.says(j.with("alice", seed.Recovery[5]), "locked until")
	if refused := j.refusals(before); len(refused) != 1 || refused[0].Judged.Code == nil || refused[0].Judged.Code.Recovery != 6 {
		t.Errorf("typed while codes were locked, it is not used up: %+v", refused)
	}
}
