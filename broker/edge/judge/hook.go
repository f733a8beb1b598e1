package judge

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// HeaderSignature carries the signature of a hook's answer: base64 of an SSHSIG blob over the body's exact bytes, in the
// namespace hook@pim-ssh.
const HeaderSignature = "PIM-Hook-Signature"

// KindHook keeps the signatures of hooks apart from all others.
const KindHook statement.Kind = "hook"

// Bounds of what a hook may cost.
const (
	hookPatience = 3 * time.Second
	hookAnswer   = 16 << 10 // bytes
	hooksAtOnce  = 16
	maxWhy       = 200 // bytes
)

// Evaluation is what a hook is asked, as JSON in the body of a POST.
type Evaluation struct {
	V          int                  `json:"v"`
	Evaluation string               `json:"evaluation"` // 32 hex digits, new for each; the answer repeats it
	Statement  statement.Proof      `json:"statement"`  // the request or decision, as its author signed it
	Request    *statement.Proof     `json:"request"`    // with a decision: the request that it is on; else null
	Person     statement.Person     `json:"person"`     // who signed the statement
	Role       statement.RoleName   `json:"role"`
	Hosts      []statement.HostName `json:"hosts"`  // of the request
	Source     string               `json:"source"` // the address that the statement came from
}

// HookWord is what a hook says.
type HookWord string

// The closed set of words. The zero value is none of them.
const (
	Allow  HookWord = "allow"
	Refuse HookWord = "refuse"
	Demand HookWord = "demand" // so many approvals beside the role's own
)

// HookAnswer is the body of a hook's answer, signed. Unknown members are refused.
type HookAnswer struct {
	Evaluation string   `json:"evaluation"`
	Verdict    HookWord `json:"verdict"`
	Approvals  int      `json:"approvals,omitzero"` // with demand: 1 to broker.MaxMore
	Why        string   `json:"why,omitzero"`
}

// Hooks calls the hooks of roles, so many at once at most. It is safe for concurrent use.
type Hooks struct {
	random io.Reader
	client *http.Client
	slots  chan struct{}
}

// NewHooks makes a caller. Randomness makes the evaluations' ids.
func NewHooks(random io.Reader) *Hooks {
	return &Hooks{
		random: random, slots: make(chan struct{}, hooksAtOnce),
		client: &http.Client{
			Transport: &http.Transport{
				DialContext: (&net.Dialer{Timeout: hookPatience}).DialContext, DisableKeepAlives: true, DisableCompression: true,
				MaxResponseHeaderBytes: hookAnswer,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Ask asks a role's hook. Whatever is not a well-formed, rightly signed answer to this very question, in time, is a refusal; the
// error says more about it for this broker's journal. With too many hooks being asked, nobody is, and the verdict is nil.
func (h *Hooks) Ask(ctx context.Context, hook policy.Hook, about Evaluation) (*broker.HookVerdict, error) {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		return nil, broker.Refuse(broker.Unavailable, "try again in a moment", "too many hooks are being asked at once")
	}
	id := make([]byte, 16)
	if _, err := io.ReadFull(h.random, id); err != nil {
		return nil, fmt.Errorf("evaluation: %w", err)
	}
	about.V, about.Evaluation = 1, hex.EncodeToString(id)
	answer, err := h.answer(ctx, hook, about)
	var told spoken
	switch {
	case errors.As(err, &told):
		return &broker.HookVerdict{Evaluation: about.Evaluation, Refused: true, Why: string(told)}, err
	case err != nil:
		return &broker.HookVerdict{Evaluation: about.Evaluation, Refused: true, Why: "it did not answer"}, err
	default:
		return &broker.HookVerdict{Evaluation: about.Evaluation, Refused: answer.Verdict == Refuse, More: answer.Approvals, Why: answer.Why}, nil
	}
}

// spoken is what is wrong with an answer, in words of ours.
type spoken string

func (s spoken) Error() string { return string(s) }

func (h *Hooks) answer(ctx context.Context, hook policy.Hook, about Evaluation) (HookAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, hookPatience)
	defer cancel()
	body, err := json.Marshal(about, json.Deterministic(true))
	if err != nil {
		return HookAnswer{}, fmt.Errorf("evaluation: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, hook.URL, bytes.NewReader(body))
	if err != nil {
		return HookAnswer{}, fmt.Errorf("evaluation: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := h.client.Do(request)
	if err != nil {
		return HookAnswer{}, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return HookAnswer{}, spoken(fmt.Sprintf("it answered %d", response.StatusCode))
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, hookAnswer+1))
	if err != nil {
		return HookAnswer{}, err
	}
	if len(data) > hookAnswer {
		return HookAnswer{}, spoken(fmt.Sprintf("its answer is larger than %d bytes", hookAnswer))
	}
	if err := signedBy(hook.Key, data, response.Header.Values(HeaderSignature)); err != nil {
		return HookAnswer{}, err
	}
	return read(data, about.Evaluation)
}

// signedBy holds an answer to the key in the policy, before anything in it is read.
func signedBy(key statement.Key, data []byte, signatures []string) error {
	if len(signatures) != 1 {
		return spoken("its answer is not signed")
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(signatures[0])
	if err != nil {
		return spoken("its answer's signature is not in base64")
	}
	signers, err := statement.OpenPayload(KindHook, statement.Proof{Payload: data, Signatures: [][]byte{blob}})
	if err != nil || len(signers) != 1 {
		return errors.Join(spoken("its answer's signature does not hold"), err)
	}
	if signers[0].Key != key {
		return spoken("its answer is signed by another key than the policy names")
	}
	return nil
}

func read(data []byte, evaluation string) (HookAnswer, error) {
	var answer HookAnswer
	if err := statement.DecodeStrict(data, &answer); err != nil {
		return HookAnswer{}, errors.Join(spoken("its answer is not understood"), err)
	}
	if err := statement.CheckText(answer.Why, maxWhy); err != nil {
		return HookAnswer{}, errors.Join(spoken("its reason is no plain text of at most 200 bytes"), err)
	}
	if answer.Evaluation != evaluation {
		return HookAnswer{}, spoken("its answer is to another evaluation")
	}
	fits := false
	switch answer.Verdict {
	case Allow, Refuse:
		fits = answer.Approvals == 0
	case Demand:
		fits = answer.Approvals >= 1 && answer.Approvals <= broker.MaxMore
	}
	if !fits {
		return HookAnswer{}, spoken("its verdict is none that a hook may give")
	}
	return answer, nil
}
