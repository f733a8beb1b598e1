package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// contents is what a spool held when it was read: policy is verified, dossiers are not yet proved.
type contents struct {
	enrolment  Enrolment
	chain      policy.Chain
	dossiers   map[broker.Stem]broker.Dossier
	tombstones map[statement.Hash]Tombstone
	heard      statement.Time
	floor      statement.Time
	epoch      epoch
	unread     error // why the epoch is not known, and nothing may start until it is
	halt       error // why nothing may start at all; nil when all is well
}

// load reads the whole spool. It fails only when this host is not, or not readably, enrolled; every other file that
// cannot be believed is set aside, and what that costs is access, never safety.
func (s *Spool) load() (contents, error) {
	enrolment, err := s.loadEnrolment()
	if err != nil {
		return contents{}, err
	}
	c := contents{enrolment: enrolment, heard: s.readTime(heardFile), floor: s.readTime(floorFile)}
	if c.chain, err = s.loadPolicies(enrolment.chain); err != nil {
		return contents{}, err
	}
	c.epoch, c.unread = s.loadEpoch()
	c.enrolment.Host.Since = c.epoch.Created
	if c.tombstones, err = s.loadTombstones(); err != nil {
		return contents{}, err
	}
	if c.dossiers, err = s.loadDossiers(); err != nil {
		return contents{}, err
	}
	if err := s.entombEnded(c); err != nil {
		return contents{}, err
	}
	c.halt = errors.Join(s.checkNewest(c.chain), s.checkForks(c.chain))
	return c, nil
}

// loadPolicies walks the chain forward from the enrolment's. A revision that does not follow is set aside, and so is
// everything behind it: the chain ends before the gap.
func (s *Spool) loadPolicies(chain policy.Chain) (policy.Chain, error) {
	names, err := s.names(policyDir)
	if err != nil {
		return chain, err
	}
	for _, name := range names {
		proof, err := s.readProof(policyDir, name)
		if err != nil {
			s.setAside(err, policyDir, name)
			continue
		}
		next, err := chain.Advance(proof)
		var fork *policy.Fork
		switch {
		case err == nil:
			chain = next
		case errors.Is(err, policy.ErrKnown):
		case errors.As(err, &fork):
			if err := s.putFork(fork); err != nil {
				return chain, err
			}
			s.setAside(err, policyDir, name)
		default:
			s.setAside(err, policyDir, name)
		}
	}
	return chain, nil
}

func (s *Spool) readProof(parts ...string) (statement.Proof, error) {
	data, err := s.read(parts...)
	if err != nil {
		return statement.Proof{}, err
	}
	return statement.ParseProof(data)
}

func (s *Spool) loadDossiers() (map[broker.Stem]broker.Dossier, error) {
	names, err := s.names(dossierDir)
	if err != nil {
		return nil, err
	}
	found := map[broker.Stem]broker.Dossier{}
	for _, name := range names {
		d, err := s.readDossier(name)
		if err != nil {
			s.setAside(err, dossierDir, name)
			continue
		}
		found[d.Stem()] = d
	}
	return found, nil
}

// entombEnded makes every end that a dossier carries final: the dossier may be shown again without it.
func (s *Spool) entombEnded(c contents) error {
	for _, d := range c.dossiers {
		request := d.Request.Hash()
		if _, known := c.tombstones[request]; known || d.Ended == nil {
			continue
		}
		t := Tombstone{How: EndedHow(d.Ended.How), At: d.Ended.At}
		if err := s.putTombstone(request, t); err != nil {
			return err
		}
		c.tombstones[request] = t
	}
	return nil
}

func (s *Spool) readDossier(name string) (broker.Dossier, error) {
	data, err := s.read(dossierDir, name)
	if err != nil {
		return broker.Dossier{}, err
	}
	var d broker.Dossier
	if err := statement.DecodeStrict(data, &d); err != nil {
		return broker.Dossier{}, err
	}
	if want := string(d.Stem()) + ".json"; name != want {
		return broker.Dossier{}, fmt.Errorf("holds the dossier of %s", want)
	}
	return d, nil
}

// loadTombstones believes names alone: a torn tombstone still ends its grant.
func (s *Spool) loadTombstones() (map[statement.Hash]Tombstone, error) {
	names, err := s.names(tombstoneDir)
	if err != nil {
		return nil, err
	}
	found := map[statement.Hash]Tombstone{}
	for _, name := range names {
		request, err := statement.ParseHash(strings.TrimSuffix(name, ".json"))
		if err != nil {
			s.setAside(err, tombstoneDir, name)
			continue
		}
		found[request] = s.readTombstone(name)
	}
	return found, nil
}

func (s *Spool) readTombstone(name string) Tombstone {
	var t Tombstone
	data, err := s.read(tombstoneDir, name)
	if err == nil {
		err = statement.DecodeStrict(data, &t)
	}
	if err != nil {
		s.log.Error("tombstone is torn and still counts", "file", name, "error", err)
		return Tombstone{How: EndedHow(broker.EndedByRevoke)}
	}
	return t
}

// checkNewest refuses to judge by a policy older than one this host has verified before: a lost file must not give
// back what a later revision took.
func (s *Spool) checkNewest(chain policy.Chain) error {
	data, err := s.read(newestFile)
	if errors.Is(err, fs.ErrNotExist) {
		return s.putJSON(chain.Ref(), newestFile)
	}
	var newest statement.PolicyRef
	if err == nil {
		err = statement.DecodeStrict(data, &newest)
	}
	if err != nil {
		s.setAside(err, newestFile)
		return fmt.Errorf("the note of the newest policy revision is torn: %w", err)
	}
	if chain.Place(newest) != policy.Known {
		return fmt.Errorf("policy revision %d was verified here before and is missing now: restore %s, or let a broker send it again",
			newest.Revision, s.path(policyDir, policyName(newest.Revision)))
	}
	if newest.Revision < chain.Ref().Revision {
		return s.putJSON(chain.Ref(), newestFile)
	}
	return nil
}

// checkForks reports a fork for which there is evidence that verifies.
func (s *Spool) checkForks(chain policy.Chain) error {
	names, err := s.names(forkDir)
	if err != nil {
		return err
	}
	var forks []error
	for _, name := range names {
		proof, err := s.readProof(forkDir, name)
		if err == nil {
			_, err = chain.Advance(proof)
		}
		if errors.Is(err, policy.ErrFork) {
			forks = append(forks, err)
		}
	}
	return errors.Join(forks...)
}

// Policy returns who this host is and the newest policy its spool proves. It changes nothing, so it may run beside an
// agent.
func (s *Spool) Policy() (policy.Chain, broker.Host, error) {
	enrolment, err := s.loadEnrolment()
	if err != nil {
		return policy.Chain{}, broker.Host{}, err
	}
	chain := enrolment.chain
	for {
		next := policyName(chain.Ref().Revision + 1)
		proof, err := s.readProof(policyDir, next)
		if errors.Is(err, fs.ErrNotExist) {
			return chain, enrolment.Host, nil
		}
		if err == nil {
			chain, err = chain.Advance(proof)
		}
		if err != nil {
			return policy.Chain{}, broker.Host{}, fmt.Errorf("spool %s: %w", next, err)
		}
	}
}
