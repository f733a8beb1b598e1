package statement

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
)

// DecodeStrict is the one strict decoder: exactly one JSON value in UTF-8, no unknown, duplicate or case-variant
// member, nothing after it. The caller caps the size first.
func DecodeStrict(data []byte, into any) error {
	return json.Unmarshal(data, into, json.RejectUnknownMembers(true))
}

// Encode returns the canonical payload of a body that keeps the rules of shape.
func Encode(b Body) ([]byte, error) {
	if b == nil {
		return nil, errors.New("statement: no body")
	}
	kind := b.Header().Kind
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("%.20s: %w", kind, err)
	}
	payload, err := json.Marshal(b, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("%.20s: %w", kind, err)
	}
	if len(payload) > MaxPayload {
		return nil, fmt.Errorf("%.20s: %d bytes: at most %d", kind, len(payload), MaxPayload)
	}
	return payload, nil
}

// decode reads a payload into the body its kind names and refuses every second spelling of it.
func decode(payload []byte) (Body, error) {
	if len(payload) > MaxPayload {
		return nil, fmt.Errorf("%d bytes: at most %d", len(payload), MaxPayload)
	}
	var head struct {
		Kind Kind `json:"kind"`
	}
	if err := json.Unmarshal(payload, &head); err != nil {
		return nil, err
	}
	b, err := decodeKind(head.Kind, payload)
	if err != nil {
		return nil, err
	}
	again, err := Encode(b)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, payload) {
		return nil, fmt.Errorf("%s: not in canonical form", head.Kind)
	}
	return b, nil
}

func decodeKind(kind Kind, payload []byte) (Body, error) {
	switch kind {
	case KindRequest:
		return decodeAs[Request](payload)
	case KindDecision:
		return decodeAs[Decision](payload)
	case KindCertificate:
		return decodeAs[Certificate](payload)
	case KindEnd:
		return decodeAs[End](payload)
	case KindSession:
		return decodeAs[Session](payload)
	case KindRead:
		return decodeAs[Read](payload)
	case KindHostToken:
		return decodeAs[HostToken](payload)
	case KindEnrolment:
		return decodeAs[Enrolment](payload)
	case KindReport:
		return decodeAs[Report](payload)
	case KindCluster:
		return decodeAs[Cluster](payload)
	case KindRestore:
		return decodeAs[Restore](payload)
	case KindFactor:
		return decodeAs[Factor](payload)
	case KindReview:
		return decodeAs[Review](payload)
	case KindRenewal:
		return decodeAs[Renewal](payload)
	case KindPolicy:
		return nil, errors.New("policy: has its own chain; it is no statement to open here")
	default:
		return nil, fmt.Errorf("unknown kind %.20q", kind)
	}
}

func decodeAs[T Body](payload []byte) (Body, error) {
	var b T
	if err := DecodeStrict(payload, &b); err != nil {
		return nil, err
	}
	return b, nil
}
