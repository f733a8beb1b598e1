package statement_test

import (
	"strings"
	"testing"
	"time"

	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

// edit changes a copy of a good body.
func edit[T statement.Body](b T, change func(*T)) statement.Body {
	change(&b)
	return b
}

func find[T statement.Body](t testing.TB) T {
	t.Helper()
	for _, b := range bodies(t) {
		if found, ok := b.(T); ok {
			return found
		}
	}
	t.Fatal("no such body")
	panic("unreachable")
}

func TestBodyThatBreaksARuleCannotBeSigned(t *testing.T) {
	type (
		req  = statement.Request
		dec  = statement.Decision
		end  = statement.End
		ses  = statement.Session
		read = statement.Read
		tok  = statement.HostToken
		enr  = statement.Enrolment
		rep  = statement.Report
		crt  = statement.Certificate
		clu  = statement.Cluster
		res  = statement.Restore
	)
	r, d, e := request(), find[dec](t), find[end](t)
	many := make([]statement.HostName, statement.MaxHosts+1)
	for i := range many {
		many[i] = statement.HostName(strings.Repeat("a", 1+i%50) + strings.Repeat("b", 1+i/50))
	}
	rsa := signtest.Public(signtest.RSA(3072))
	for name, c := range map[string]struct {
		body statement.Body
		want string
	}{
		"no body at all":                  {nil, "no body"},
		"the zero request":                {req{}, "version 0"},
		"a kind that lies":                {edit(r, func(r *req) { r.Kind = statement.KindEnd }), "kind is"},
		"no deployment":                   {edit(r, func(r *req) { r.Deployment = statement.Hash{} }), "deployment"},
		"no policy revision":              {edit(r, func(r *req) { r.Policy.Revision = 0 }), "policy"},
		"no policy hash":                  {edit(r, func(r *req) { r.Policy.Hash = statement.Hash{} }), "policy"},
		"a short nonce":                   {edit(r, func(r *req) { r.Nonce = "0a" }), "nonce"},
		"an upper-case nonce":             {edit(r, func(r *req) { r.Nonce = strings.Repeat("0A", 16) }), "nonce"},
		"no created":                      {edit(r, func(r *req) { r.Created = 0 }), "created"},
		"no not_after":                    {edit(r, func(r *req) { r.NotAfter = 0 }), "not_after"},
		"not_after before created":        {edit(r, func(r *req) { r.NotAfter = r.Created - 1 }), "not_after"},
		"alive for two years":             {edit(r, func(r *req) { r.NotAfter = r.Created.Add(2 * statement.MaxLifetime) }), "not_after"},
		"nobody":                          {edit(r, func(r *req) { r.Person = "" }), "exactly one"},
		"a person by a hand-made name":    {edit(r, func(r *req) { r.Person = "a;id" }), "person"},
		"a role by a hand-made name":      {edit(r, func(r *req) { r.Role = "../x" }), "role"},
		"no hosts":                        {edit(r, func(r *req) { r.Hosts = nil }), "hosts"},
		"too many hosts":                  {edit(r, func(r *req) { r.Hosts = many }), "hosts"},
		"every host by a star":            {edit(r, func(r *req) { r.Hosts = []statement.HostName{"*"} }), "hosts"},
		"hosts by label":                  {edit(r, func(r *req) { r.Hosts = []statement.HostName{"@tier=db"} }), "hosts"},
		"hosts out of order":              {edit(r, func(r *req) { r.Hosts = []statement.HostName{"b", "a"} }), "order"},
		"a host twice":                    {edit(r, func(r *req) { r.Hosts = []statement.HostName{"a", "a"} }), "twice"},
		"no duration":                     {edit(r, func(r *req) { r.Duration = 0 }), "duration"},
		"a negative duration":             {edit(r, func(r *req) { r.Duration = -1 }), "duration"},
		"a duration of a thousand years":  {edit(r, func(r *req) { r.Duration = 1000 * statement.MaxLifetime }), "duration"},
		"no reason":                       {edit(r, func(r *req) { r.Reason = "" }), "reason"},
		"a reason of blanks":              {edit(r, func(r *req) { r.Reason = "   " }), "reason"},
		"a reason too long":               {edit(r, func(r *req) { r.Reason = strings.Repeat("x", 1001) }), "reason"},
		"a reason that is no UTF-8":       {edit(r, func(r *req) { r.Reason = "\xff" }), "UTF-8"},
		"a reason in two lines":           {edit(r, func(r *req) { r.Reason = "a\nb" }), "control"},
		"a ticket with an escape":         {edit(r, func(r *req) { r.Ticket = "\x1b[2J" }), "ticket"},
		"a start before it was asked":     {edit(r, func(r *req) { r.At = r.Created - 1 }), "at"},
		"a start in ten years":            {edit(r, func(r *req) { r.At = r.Created.Add(10 * statement.MaxLifetime) }), "at"},
		"expired when made":               {edit(r, func(r *req) { r.Expires = r.Created }), "expires"},
		"never expiring":                  {edit(r, func(r *req) { r.Expires = r.Created.Add(2 * statement.MaxLifetime) }), "expires"},
		"a key that is none":              {edit(r, func(r *req) { r.Keys = []statement.Key{"x"} }), "keys"},
		"a key twice":                     {edit(r, func(r *req) { r.Keys = []statement.Key{rsa, rsa} }), "twice"},
		"nine keys":                       {edit(r, func(r *req) { r.Keys = make([]statement.Key, 9) }), "keys"},
		"a decision on nothing":           {edit(d, func(d *dec) { d.Request = statement.Hash{} }), "request"},
		"a decision without verdict":      {edit(d, func(d *dec) { d.Verdict = "" }), "verdict"},
		"a decision in other words":       {edit(d, func(d *dec) { d.Verdict = "Approve" }), "verdict"},
		"an approval of no hosts":         {edit(d, func(d *dec) { d.Hosts = []statement.HostName{} }), "hosts"},
		"an approval for less than none":  {edit(d, func(d *dec) { d.Duration = -1 }), "duration"},
		"a denial that narrows":           {edit(d, func(d *dec) { d.Verdict = statement.Deny }), "narrows"},
		"an end of nothing":               {edit(e, func(e *end) { e.Grant = "" }), "grant"},
		"an end of two things":            {edit(e, func(e *end) { e.Request = sentID }), "not a request"},
		"a withdrawal of a grant":         {edit(e, func(e *end) { e.How = statement.Withdraw }), "not a grant"},
		"an end in no way":                {edit(e, func(e *end) { e.How = "" }), "how"},
		"an id with a path in it":         {edit(e, func(e *end) { e.Grant = "g-../../../../etc/passwd000000" }), "grant"},
		"an id cut short":                 {edit(e, func(e *end) { e.Grant = grantID[:20] }), "grant"},
		"a request's id for a grant":      {edit(e, func(e *end) { e.Grant = sentID }), "grant"},
		"a certificate for no key":        {edit(find[crt](t), func(c *crt) { c.Key = "" }), "key"},
		"a certificate for no grant":      {edit(find[crt](t), func(c *crt) { c.Grant = "" }), "grant"},
		"a session of 13 hours":           {edit(find[ses](t), func(s *ses) { s.Until = s.Created.Add(13 * 3600) }), "until"},
		"a session of no time":            {edit(find[ses](t), func(s *ses) { s.Until = s.Created }), "until"},
		"a read that writes":              {edit(find[read](t), func(r *read) { r.Method = "POST" }), "method"},
		"a read of two minutes":           {edit(find[read](t), func(r *read) { r.NotAfter = r.Created.Add(120) }), "not_after"},
		"a read of another site":          {edit(find[read](t), func(r *read) { r.PathAndQuery = "http://x/" }), "path_and_query"},
		"a read with a line break":        {edit(find[read](t), func(r *read) { r.PathAndQuery = "/v1/\r\nx" }), "path_and_query"},
		"a read by both":                  {edit(find[read](t), func(r *read) { r.Host = "db1" }), "exactly one"},
		"a token by a host":               {edit(token(), func(k *tok) { k.Head = hostHead(statement.KindHostToken) }), "want a person"},
		"a token for no host":             {edit(token(), func(k *tok) { k.Name = "" }), "name"},
		"a token with an odd label":       {edit(token(), func(k *tok) { k.Labels = map[string]string{"Tier": "db"} }), "label"},
		"a token with an odd value":       {edit(token(), func(k *tok) { k.Labels = map[string]string{"tier": "a b"} }), "label"},
		"a token with an empty value":     {edit(token(), func(k *tok) { k.Labels = map[string]string{"tier": ""} }), "label"},
		"a token without addresses":       {edit(token(), func(k *tok) { k.Addresses = nil }), "addresses"},
		"a token that matches every host": {edit(token(), func(k *tok) { k.Addresses = []string{"*"} }), "addresses"},
		"a token with two in one address": {edit(token(), func(k *tok) { k.Addresses = []string{"a,b"} }), "addresses"},
		"a token with an option":          {edit(token(), func(k *tok) { k.Addresses = []string{"-oproxycommand"} }), "addresses"},
		"a token by an rsa key":           {edit(token(), func(k *tok) { k.Key = rsa }), "want ssh-ed25519"},
		"a token expired when made":       {edit(token(), func(k *tok) { k.Expires = k.Created }), "expires"},
		"an enrolment by a person":        {edit(enrolment(t), func(e *enr) { e.Head = head(statement.KindEnrolment) }), "want a host"},
		"an enrolment of no machine":      {edit(enrolment(t), func(e *enr) { e.MachineID = statement.Hash{} }), "machine_id"},
		"an enrolment without host keys":  {edit(enrolment(t), func(e *enr) { e.HostKeys = nil }), "host_keys"},
		"an enrolment without token":      {edit(enrolment(t), func(e *enr) { e.Token = statement.Proof{} }), "token"},
		"an enrolment of an rsa identity": {edit(enrolment(t), func(e *enr) { e.Identity = rsa }), "want ssh-ed25519"},
		"a report by a person":            {edit(find[rep](t), func(r *rep) { r.Head = head(statement.KindReport) }), "want a host"},
		"a report out of count":           {edit(find[rep](t), func(r *rep) { r.Sequence = 0 }), "sequence"},
		"a report of nothing":             {edit(find[rep](t), func(r *rep) { r.What = "" }), "what"},
		"a report of a path for service":  {edit(find[rep](t), func(r *rep) { r.Service = "../sshd" }), "service"},
		"a report with lines in its why":  {edit(find[rep](t), func(r *rep) { r.Why = "a\nb" }), "why"},
		"a report of an odd session":      {edit(find[rep](t), func(r *rep) { r.Session = "c1;id" }), "session"},
		"a report of an odd grant":        {edit(find[rep](t), func(r *rep) { r.Grant = "g-x" }), "grant"},
		"a report of an odd account":      {edit(find[rep](t), func(r *rep) { r.Account = "Root" }), "account"},
		"a cluster changed by a host":     {edit(find[clu](t), func(c *clu) { c.Head = hostHead(statement.KindCluster) }), "want a person"},
		"a cluster changed in no way":     {edit(find[clu](t), func(c *clu) { c.Action = "" }), "action"},
		"a broker added without a name":   {edit(find[clu](t), func(c *clu) { c.Broker = "" }), "broker"},
		"a broker by a hand-made name":    {edit(find[clu](t), func(c *clu) { c.Broker = "b4/x" }), "broker"},
		"a broker added without a disk":   {edit(find[clu](t), func(c *clu) { c.Disk = "" }), "disk"},
		"a disk in capitals":              {edit(find[clu](t), func(c *clu) { c.Disk = "1F2E1F2E1F2E1F2E1F2E1F2E1F2E1F2E" }), "disk"},
		"a disk with a path in it":        {edit(find[clu](t), func(c *clu) { c.Disk = "../../../../../../etc/pim-ssh/aa" }), "disk"},
		"a broker added under new rules":  {edit(find[clu](t), func(c *clu) { c.Rules = 2 }), "rules"},
		"a removal that watches":          {edit(find[clu](t), func(c *clu) { c.Action = statement.Remove }), "watching"},
		"a removal of nobody":             {edit(find[clu](t), func(c *clu) { c.Action, c.Watching, c.Broker = statement.Remove, false, "" }), "broker"},
		"a removal of an odd disk":        {edit(find[clu](t), func(c *clu) { c.Action, c.Watching, c.Disk = statement.Remove, false, "x" }), "disk"},
		"rules for one broker":            {edit(find[clu](t), func(c *clu) { c.Action, c.Rules = statement.Raise, 2 }), "all brokers"},
		"rules raised to nothing":         {statement.Cluster{Head: head(statement.KindCluster), Action: statement.Raise}, "rules 0"},
		"rules raised to the first":       {statement.Cluster{Head: head(statement.KindCluster), Action: statement.Raise, Rules: 1}, "rules 1"},
		"a restore by a host":             {edit(find[res](t), func(r *res) { r.Head = hostHead(statement.KindRestore) }), "want a person"},
		"a restore of no epoch":           {edit(find[res](t), func(r *res) { r.Epoch = 0 }), "epoch"},
		"a restore past the last epoch":   {edit(find[res](t), func(r *res) { r.Epoch = 1<<20 + 1 }), "epoch"},
		"a restore of nothing":            {edit(find[res](t), func(r *res) { r.Size = 0 }), "no record"},
		"a restore of no tree":            {edit(find[res](t), func(r *res) { r.Root = statement.Hash{} }), "no record"},
		"a restore without a reason":      {edit(find[res](t), func(r *res) { r.Why = " " }), "why"},
		"a restore for a long story":      {edit(find[res](t), func(r *res) { r.Why = strings.Repeat("x", 1001) }), "why"},
		"a restore despite two lines":     {edit(find[res](t), func(r *res) { r.Despite = "a\nb" }), "despite"},
		"a report of the last epoch":      {edit(find[rep](t), func(r *rep) { r.Epoch = 1<<20 + 1 }), "epoch"},
		"a cluster changed in two lines":  {edit(find[clu](t), func(c *clu) { c.Reason = "a\nb" }), "reason"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := statement.Sign(c.body, signtest.Ed25519("token"), signtest.Ed25519("db1"))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

// Hosts follow the operator's token and nobody else's word.
func TestEnrolmentHoldsToItsToken(t *testing.T) {
	type enr = statement.Enrolment
	once, identity, alice := signtest.Ed25519("token"), signtest.Ed25519("db1"), signtest.Ed25519("alice")
	good := enrolment(t)
	if _, err := statement.Sign(good, once, identity); err != nil {
		t.Fatal(err)
	}
	spoilt := good.Token
	spoilt.Signatures = [][]byte{forge(t, good.Token.Payload, requestNS, "sha512", alice)}
	for name, c := range map[string]struct {
		body  statement.Body
		by    []signtest.Key
		wants string
	}{
		"signed by the identity only":        {good, []signtest.Key{identity}, "want 2"},
		"signed in the other order":          {good, []signtest.Key{identity, once}, "first signature"},
		"signed without the token's secret":  {good, []signtest.Key{alice, identity}, "first signature"},
		"signed by another identity":         {good, []signtest.Key{once, alice}, "second signature"},
		"for another host than the token's":  {edit(good, func(e *enr) { e.Host = "db2" }), []signtest.Key{once, identity}, "for host db1"},
		"for another deployment":             {edit(good, func(e *enr) { e.Deployment = statement.HashOf(nil) }), []signtest.Key{once, identity}, "deployment"},
		"after the token expired":            {edit(good, func(e *enr) { e.Created, e.NotAfter = day.Add(901), day.Add(961) }), []signtest.Key{once, identity}, "expired"},
		"with a request for a token":         {edit(good, func(e *enr) { e.Token = sign(t, request(), alice) }), []signtest.Key{once, identity}, "is no token"},
		"with an enrolment for a token":      {edit(good, func(e *enr) { e.Token = sign(t, good, once, identity) }), []signtest.Key{once, identity}, "is no token"},
		"with a token signed for other uses": {edit(good, func(e *enr) { e.Token = spoilt }), []signtest.Key{once, identity}, "namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			payload, err := statement.Encode(c.body)
			if err != nil {
				t.Fatal(err)
			}
			p := statement.Proof{Payload: payload}
			for _, s := range c.by {
				p.Signatures = append(p.Signatures, forge(t, payload, "enrolment@pim-ssh", "sha512", s))
			}
			refused(t, p, c.wants)
		})
	}
}

func TestNamesAreHeldToTheirGrammar(t *testing.T) {
	person := func(s string) error { _, err := statement.ParsePerson(s); return err }
	account := func(s string) error { _, err := statement.ParseAccount(s); return err }
	host := func(s string) error { _, err := statement.ParseHostName(s); return err }
	role := func(s string) error { _, err := statement.ParseRoleName(s); return err }
	broker := func(s string) error { _, err := statement.ParseBrokerName(s); return err }
	disk := func(s string) error { _, err := statement.ParseDisk(s); return err }
	long := strings.Repeat("a", 63)
	for _, c := range []struct {
		parse func(string) error
		good  []string
		bad   []string
	}{
		{person, []string{"alice", "_x", "a", "bob-2", long[:31]},
			[]string{"", "Alice", "2bob", "-x", "a.b", "a b", "a\n", "a\x00", "é", "a%", "a#b", "root+", "a/b", long[:32]}},
		{account, []string{"postgres", "_apt", "www-data"}, []string{"", "0", "1000", "Root", "a.b", "a#", "a%", "a+", "a\\", "a:", "a,b", "ALL"}},
		{host, []string{"db1", "a", "1a", "db1.example.org", "10.example", long + "." + long},
			[]string{"", ".", "a.", ".a", "a..b", "-a", "a-", "DB1", "a_b", "*", "@tier=db", "10.0.0.1", "7", "a b", "a\n", "ａ", long + "a", strings.Repeat("a.", 127)}},
		{role, []string{"db-admin", "root", "a", long}, []string{"", "Root", "-a", "1a", "a_b", "a.b", "a\n", long + "a"}},
		{broker, []string{"b1", "b"}, []string{"", "B1", "1", "b_1", "b\n"}},
		{disk, []string{diskID, "0123456789abcdef0123456789abcdef"}, []string{"", diskID[1:], diskID + "0", "1F" + diskID[2:], diskID[:31] + "\n"}},
	} {
		for _, s := range c.good {
			if err := c.parse(s); err != nil {
				t.Errorf("%q: %v", s, err)
			}
		}
		for _, s := range c.bad {
			if c.parse(s) == nil {
				t.Errorf("%q parsed", s)
			}
		}
	}
}

func TestTimeIsWholeSecondsInUTC(t *testing.T) {
	if day.String() != "2026-11-23T08:00:00Z" {
		t.Fatal(day)
	}
	if got := statement.TimeOf(time.Date(2026, 11, 23, 9, 0, 0, 999, time.FixedZone("CET", 3600))); got != day {
		t.Errorf("got %s", got)
	}
	if !day.Std().Equal(time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)) || day.Add(60).Sub(day) != 60 {
		t.Error("arithmetic")
	}
	var zero statement.Time
	if zero.String() != "" || !zero.Std().IsZero() {
		t.Error("zero is an instant")
	}
	if _, err := statement.ParseTime(""); err == nil {
		t.Error("nothing parsed as a time")
	}
}

func TestTextMayCarryAnythingButControls(t *testing.T) {
	for _, s := range []string{"", "ok", "réplica 複製 🐘", "\u202eevil", "<b>&amp;", strings.Repeat("x", 1000)} {
		if err := statement.CheckText(s, 1000); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"\n", "\r", "\t", "\x00", "\x1b[0m", "\x7f", "\u0085", "\u009b", "\xff", "\xed\xa0\x80", strings.Repeat("x", 1001)} {
		if statement.CheckText(s, 1000) == nil {
			t.Errorf("%q passed", s)
		}
	}
}
