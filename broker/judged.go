package broker

import (
	"fmt"
	"net/netip"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Judged is what only the broker that proposes a statement can judge: others take its word, and it stands in the event. The
// zero value is that nothing was found to be right.
type Judged struct {
	Source string       `json:"source,omitzero"` // the address that the statement came from
	Hours  bool         `json:"hours,omitzero"`  // it was within the role's hours, by the clock of their zone
	Local  string       `json:"local,omitzero"`  // that clock: "Mon 14:05"
	Code   *CodeJudged  `json:"code,omitempty"`  // of a code in the statement
	Old    *CodeJudged  `json:"old,omitempty"`   // of the code that a new seed replaces an old one with
	Hook   *HookVerdict `json:"hook,omitempty"`
}

// CodeJudged says what a code is: of which step of 30 s, or which recovery code.
type CodeJudged struct {
	Right    bool   `json:"right"`
	Step     uint64 `json:"step,omitzero"`     // seconds since 1970, divided by 30
	Recovery int    `json:"recovery,omitzero"` // 1 to 10
}

// HookVerdict is what a role's hook answered.
type HookVerdict struct {
	Evaluation string `json:"evaluation"`    // the hook's own id of it; ours when it did not answer
	Refused    bool   `json:"refused"`       // also when it did not answer, or not rightly
	More       int    `json:"more,omitzero"` // so many approvals beside the role's own
	Why        string `json:"why,omitzero"`
}

// MaxMore is how many approvals a hook may demand beside a role's own.
const MaxMore = 10

// conditions holds a statement to where it came from, and when.
func (t *turn) conditions(name statement.RoleName, role policy.Role) error {
	source, err := netip.ParseAddr(t.judged.Source)
	if len(role.Networks) > 0 && (err != nil || !inside(source.Unmap(), role.Networks)) {
		return Refuse(Denied, "ask from one of these networks, or ask a steward", "role %s is for people in %v; this came from %.50s", name, role.Networks, t.judged.Source)
	}
	if role.Hours != nil && !t.judged.Hours {
		return Refuse(Denied, "pim-ssh explain "+string(name), "role %s has its hours, and it is %.20s in %s", name, t.judged.Local, role.Hours.Zone)
	}
	return nil
}

// hooked holds a statement to what the role's hook says. It comes last: a hook is asked about what all else holds for.
func (t *turn) hooked(name statement.RoleName, role policy.Role) error {
	if role.Hook == nil {
		return nil
	}
	switch hook := t.judged.Hook; {
	case hook == nil:
		return Refuse(Denied, "ask a steward", "role %s asks a hook first, and nobody asked it", name)
	case hook.Refused:
		return Refuse(Denied, "ask who runs the hook", "the hook of role %s refuses (evaluation %.60s): %.200s", name, hook.Evaluation, hook.Why)
	default:
		return nil
	}
}

// more is how many approvals the hook demanded with this statement.
func (j Judged) more() int {
	if j.Hook == nil {
		return 0
	}
	return min(max(0, j.Hook.More), MaxMore)
}

func inside(source netip.Addr, networks []string) bool {
	for _, network := range networks {
		if prefix, err := netip.ParsePrefix(network); err == nil && prefix.Contains(source) {
			return true
		}
	}
	return false
}

// String says what was judged, for people: "from 10.1.2.3, Mon 14:05".
func (j Judged) String() string {
	said := ""
	if j.Source != "" {
		said = "from " + j.Source
	}
	if j.Local != "" {
		said = fmt.Sprintf("%s, %s", said, j.Local)
	}
	return said
}
