package policy

import (
	"slices"

	"pgregory.net/rapid"

	"pim-ssh/broker/statement"
)

// drawLimits adds to a role what version 2 has words for: each of it now and then, and mostly what Check lets through.
func drawLimits(t *rapid.T, r Role, names []Name) Role {
	often := func(what string) bool { return rapid.IntRange(0, 2).Draw(t, what) == 0 }
	r.PlainKey = r.Approvals.None
	for range rapid.IntRange(0, 2).Draw(t, "dated") {
		r.Dated = append(r.Dated, drawEntry(t, names))
	}
	if often("active") {
		r.Active = append(r.Active, drawEntry(t, names))
	}
	if often("parts") && !r.Approvals.None {
		r.And = append(r.And, Part{1, some(t, names, 1, "part")})
	}
	if often("fallback") && !r.Approvals.None {
		r.Fallback = []Fallback{{30, some(t, names, 1, "fallback")}}
	}
	if often("factors") {
		r.Factors = Factors{Ask: TOTP, Fresh: statement.Seconds(rapid.IntRange(0, 900).Draw(t, "fresh"))}
	}
	if often("words") {
		r.ReasonLeast, r.Ticket = rapid.IntRange(0, 250).Draw(t, "least"), rapid.SampledFrom([]string{"", "INC-[0-9]+", "(a|b)*"}).Draw(t, "ticket")
		r.ApproverReason = !r.Approvals.None
	}
	if often("budget") {
		r.Budget = Budget{Time: 3600, Per: rapid.SampledFrom([]statement.Seconds{7200, statement.Day, MaxPer}).Draw(t, "per")}
	}
	if often("emergency") && !r.Approvals.None && !r.ApproverReason {
		r.Emergency, r.PlainKey = true, rapid.Bool().Draw(t, "plain")
	}
	if often("hours") {
		r.Hours = &Hours{Zone: "Europe/Berlin", Weekly: []Span{{rapid.IntRange(0, 100).Draw(t, "span"), 200}, {300, 400}}}
	}
	if often("networks") {
		r.Networks = some(t, []string{"10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"}, 1, "networks")
	}
	if often("hook") {
		r.Hook = &Hook{URL: "https://hook.example.org/", Key: key("hook")}
	}
	return r
}

func drawEntry(t *rapid.T, names []Name) Eligibility {
	e := Eligibility{Who: rapid.SampledFrom(names).Draw(t, "who"), From: statement.Time(rapid.SampledFrom([]int{0, 1_700_000_000, 1_750_000_000}).Draw(t, "from"))}
	if rapid.Bool().Draw(t, "bound") || e.From == 0 {
		e.Until = statement.Time(rapid.SampledFrom([]int{1_760_000_000, 1_800_000_000}).Draw(t, "until"))
	}
	if rapid.Bool().Draw(t, "somewhere") {
		e.Hosts = &Selector{Names: slices.Sorted(slices.Values(some(t, []statement.HostName{"db1", "web1"}, 1, "hosts")))}
	}
	return e
}
