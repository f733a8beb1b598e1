package agent

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// When the brokers are restored from a backup, what was ended since is not known to them any more. So an operator's signed
// restore begins an epoch, of which every stream tells first of all: this host ends all its grants, holds what was asked before
// for void ever after, and follows no broker that goes by the record from before.

// epoch is the newest restore that this host knows of. The zero epoch is the time before the first.
type epoch struct {
	statement.Restore
	proof statement.Proof
}

func (e epoch) none() bool { return e.Epoch == 0 }

// binds reports whether brokers that do not show the epoch are to be passed over: while its operator is one. Stewards take back
// in this way what a stolen key signed; that older requests are void stays.
func (e epoch) binds(chain policy.Chain) bool {
	if e.none() {
		return false
	}
	_, err := broker.CheckRestore(chain, e.proof)
	return err == nil
}

// Why a stream is left.
var (
	errOldEpoch = errors.New("the broker goes by a record from before a restore; on it: pim-brokerd quarantine, then pim-brokerd restore FILE")
	errAnew     = errors.New("the brokers were restored, or this host is behind: listening from the beginning")
)

// takeRestore judges a restore that a broker shows.
func (a *Agent) takeRestore(p statement.Proof) error {
	s := a.ledger.snapshot(a.Clock.now())
	if p.Hash() == s.epoch.proof.Hash() && !s.epoch.none() {
		return nil
	}
	body, stands, err := judgeRestore(s.chain, p)
	switch {
	case broker.KindOf(err) == broker.Unavailable:
		return errAnew
	case err == nil && body.Created > s.now.Add(slack):
		err = fmt.Errorf("it was signed at %s, and it is %s here: check this machine's clock, and the operator's", body.Created, s.now)
	}
	if err != nil {
		return fmt.Errorf("a restore that is not taken: %w: %w", err, errOldEpoch)
	}
	binds := s.epoch.binds(s.chain)
	switch {
	case broker.Follows(body, s.epoch.Restore), !binds && stands && body.Created > s.epoch.Created:
		return a.beginEpoch(epoch{body, p}, stands)
	case binds:
		return errOldEpoch
	}
	return nil
}

// judgeRestore opens a restore by the policy that its operator went by, and says whether they are an operator still.
func judgeRestore(chain policy.Chain, p statement.Proof) (body statement.Restore, stands bool, err error) {
	if body, err = broker.CheckRestore(chain, p); err == nil {
		return body, true, nil
	}
	if broker.KindOf(err) == broker.Unavailable {
		return body, false, err
	}
	var named struct {
		Policy statement.PolicyRef `json:"policy"`
	}
	if json.Unmarshal(p.Payload, &named) != nil {
		return body, false, err
	}
	body, err = broker.CheckRestore(chain.Until(named.Policy.Revision), p)
	return body, false, err
}

// beginEpoch ends everything. What it takes away is on disk before anything else happens. A head that this host has seen is
// forgotten only when an operator, who is one today, says why.
func (a *Agent) beginEpoch(e epoch, stands bool) error {
	leaves := stands && e.Despite != ""
	a.spooling.Lock()
	err := errors.Join(a.Spool.putJSON(e.proof, epochFile), a.Spool.putNumber(reachedFile, 0))
	if err == nil && leaves && a.Spool.holds(headFile) {
		a.Spool.setAside(fmt.Errorf("the restore that begins epoch %d goes on without it: %s", e.Epoch, e.Despite), headFile)
	}
	a.spooling.Unlock()
	if err != nil {
		a.diskSays(err)
		return err
	}
	if leaves {
		a.witnessed.Store(nil)
	}
	a.reached, a.proved, a.based = 0, 0, false
	a.ledger.mu.Lock()
	a.ledger.epoch, a.ledger.unread = e, nil
	a.ledger.host.Since = max(a.ledger.host.Since, e.Created)
	a.ledger.mu.Unlock()
	a.Log.Warn("THE BROKERS WERE RESTORED: every grant from before is void", "epoch", e.Epoch, "operator", e.Person, "signed", e.Created, "why", e.Why, "despite", e.Despite)
	a.ledger.each(func(stem broker.Stem, one *entry) {
		a.ledger.mu.RLock()
		void := one.refused == nil && one.grant.Asked <= e.Created && !one.over(a.Clock.now())
		a.ledger.mu.RUnlock()
		if !void {
			return
		}
		if err := a.entomb(one, EndedHow(broker.EndedByRevoke)); err != nil {
			a.Log.Error("end not kept on disk", "grant", stem.Grant(), "error", err)
		}
	})
	poke(a.wake)
	return errAnew
}

// loadEpoch reads the restore that this host took last. It was judged then; one that cannot be read is the reason why nothing
// starts until a broker has shown it again.
func (s *Spool) loadEpoch() (epoch, error) {
	proof, err := s.readProof(epochFile)
	if errors.Is(err, fs.ErrNotExist) {
		return epoch{}, nil
	}
	var body statement.Restore
	if err == nil {
		err = statement.DecodeStrict(proof.Payload, &body)
	}
	if err != nil || body.Epoch == 0 {
		return epoch{}, fmt.Errorf("%s, the note of the newest restore, is torn, and only a broker can show it again: %w", s.path(epochFile), err)
	}
	return epoch{body, proof}, nil
}
