package edge

import (
	"fmt"
	"sync"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
)

// spelled are policies as they are sent, for everybody who is sent them: they are large, and ten thousand readers may be at
// the same one, slowly.
type spelled struct {
	mu sync.Mutex
	by map[string][]byte
}

// policy is a policy's proof in JSON.
func (s *spelled) policy(proof statement.Proof) ([]byte, error) {
	return s.once(proof.Hash().String(), func() ([]byte, error) { return json.Marshal(proof, json.Deterministic(true)) })
}

// frame is a frame in one line.
func (s *spelled) frame(frame api.Frame) ([]byte, error) {
	line := func() ([]byte, error) {
		line, err := json.Marshal(frame)
		return append(line, '\n'), err
	}
	if frame.Policy == nil {
		return line()
	}
	at := "from the start"
	if frame.Index != nil {
		at = fmt.Sprint(*frame.Index)
	}
	return s.once(frame.Policy.Hash().String()+" "+at, line)
}

func (s *spelled) once(what string, spell func() ([]byte, error)) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.by[what]; known != nil {
		return known, nil
	}
	text, err := spell()
	if err != nil {
		return nil, err
	}
	if s.by == nil {
		s.by = map[string][]byte{}
	}
	s.by[what] = text
	return text, nil
}
