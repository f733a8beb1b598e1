package edge

import (
	"errors"
	"io/fs"
	"net/http"
	"strings"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/audit"
)

// recordFile answers with a file of this broker's record as it is. Auditors may read all of it, and operators, who back it
// up; hosts need the tree, and never see the entries.
func (s *Server) recordFile(w http.ResponseWriter, r *http.Request) (any, error) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	entries := false
	if path != audit.PathCheckpoint {
		var err error
		if entries, err = audit.CheckPath(path); err != nil {
			return nil, broker.Refuse(broker.Missing, "pim-ssh audit verify", "%w", err)
		}
	}
	if err := s.mayAudit(r, entries); err != nil {
		return nil, err
	}
	data, err := s.record(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, broker.Refuse(broker.Missing, "pim-ssh audit verify", "the record has no %s", path)
	}
	if err != nil {
		return nil, err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(data) // the connection is gone: nobody is left to tell
	return nil, nil
}

// mayAudit lets in auditors, operators and, but for entries, enrolled hosts.
func (s *Server) mayAudit(r *http.Request, entries bool) error {
	key, shown := hostKey(r)
	if shown && r.Header.Get(api.HeaderProof) == "" {
		return s.view(r.Context(), func(state *broker.State) error {
			if _, enrolled := state.HostOf(key); !enrolled || entries {
				return broker.Refuse(broker.Denied, "pim-hostd enrol TOKENFILE", "no host with the key %s may read this", key.Fingerprint())
			}
			return nil
		})
	}
	evidence, err := s.evidence(r)
	if err != nil {
		return err
	}
	return s.view(r.Context(), func(state *broker.State) error {
		now := s.now()
		person, err := evidence.person(state.Chain(), now, now)
		if doc := state.Chain().Current(); err == nil && !doc.Auditor(person) && !doc.Operator(person) {
			err = broker.Refuse(broker.Denied, "ask an auditor", "%s is neither auditor nor operator", person)
		}
		return err
	})
}

// headline is the newest signed checkpoint for a host's beat; "" before there is one.
func (s *Server) headline() string {
	if s.record == nil {
		return ""
	}
	text, err := s.record(audit.PathCheckpoint)
	if err != nil {
		return ""
	}
	return string(text)
}
