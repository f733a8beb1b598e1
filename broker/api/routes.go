package api

import (
	"net/http"

	"pim-ssh/broker/statement"
)

// Who says what must be known of the caller before a route's handler runs.
type Who int

// The closed set of callers. The zero value lets nobody in.
const (
	Nobody       Who = iota
	Anyone           // nothing is known; what is served is signed by others, or proves its own author
	Person           // a person of the current policy, by a read proof
	Concerned        // a person, who sees only what concerns them
	PersonOrHost     // a person by a read proof, or an enrolled host by its TLS key
	Keeper           // an operator or an auditor, by a read proof
	KeeperOrHost     // the same, or an enrolled host by its TLS key
	Broker           // another broker of the current policy, by its TLS key
)

// String returns the word for the caller.
func (w Who) String() string {
	switch w {
	case Anyone:
		return "anyone"
	case Person:
		return "person"
	case Concerned:
		return "person concerned"
	case PersonOrHost:
		return "person or host"
	case Keeper:
		return "operator or auditor"
	case KeeperOrHost:
		return "operator, auditor or host"
	case Broker:
		return "broker"
	default:
		return "nobody"
	}
}

// RouteName names a route; package edge binds its handlers to these.
type RouteName string

// The closed set of routes.
const (
	RoutePolicy     RouteName = "policy"
	RouteStatements RouteName = "statements"
	RouteWhoami     RouteName = "whoami"
	RouteRoles      RouteName = "roles"
	RouteRequests   RouteName = "requests"
	RouteRequest    RouteName = "request"
	RouteGrants     RouteName = "grants"
	RouteGrant      RouteName = "grant"
	RouteInbox      RouteName = "inbox"
	RouteReviews    RouteName = "reviews"
	RouteRenewals   RouteName = "renewals"
	RouteHosts      RouteName = "hosts"
	RouteWatch      RouteName = "watch"
	RouteCheckpoint RouteName = "checkpoint"
	RouteTile       RouteName = "tile"
	RouteCluster    RouteName = "cluster"
	RouteHealth     RouteName = "health"
	RoutePeerIndex  RouteName = "peer index"
	RoutePeerEvents RouteName = "peer events"
	RoutePeerSum    RouteName = "peer sum"
	RoutePeerStatus RouteName = "peer status"
)

// Route is one way into a broker.
type Route struct {
	Name    RouteName
	Method  string
	Path    string   // a net/http.ServeMux pattern without the method
	Query   []string // the parameters it takes, each at most once; any other is refused
	Who     Who
	MaxBody int64 // bytes; 0 means a body is refused
	Doc     string
}

// Largest bodies of POST /v1/statements in bytes: one proof of the largest payload, and one of the largest policy.
const (
	MaxStatementBody = 96 << 10
	MaxPolicyBody    = statement.MaxProof
)

// Routes returns the one table of routes. What is not in it does not exist.
func Routes() []Route {
	return []Route{
		{RoutePolicy, http.MethodGet, "/v1/policy", []string{"after"}, Anyone, 0, "the signed policy chain, revisions greater than after"},
		{RouteStatements, http.MethodPost, "/v1/statements", nil, Anyone, MaxPolicyBody, "files one signed statement; the proof says who speaks"},
		{RouteWhoami, http.MethodGet, "/v1/whoami", nil, Person, 0, "who the caller is in the current policy"},
		{RouteRoles, http.MethodGet, "/v1/roles", nil, Person, 0, "the roles, what they reach, and who approves them"},
		{RouteRequests, http.MethodGet, "/v1/requests", []string{"all"}, Concerned, 0, "requests the caller made or may decide; all=true also ended ones"},
		{RouteRequest, http.MethodGet, "/v1/requests/{id}", nil, Concerned, 0, "one request, by any unambiguous prefix of its id"},
		{RouteGrants, http.MethodGet, "/v1/grants", []string{"all"}, Concerned, 0, "grants that concern the caller; all=true also ended ones"},
		{RouteGrant, http.MethodGet, "/v1/grants/{id}", nil, Concerned, 0, "one grant; for its holder with certificates"},
		{RouteInbox, http.MethodGet, "/v1/inbox", nil, Concerned, 0, "requests the caller can decide now"},
		{RouteReviews, http.MethodGet, "/v1/reviews", nil, Concerned, 0, "emergency grants that nobody has looked at and whose review the caller may close; all for auditors"},
		{RouteRenewals, http.MethodGet, "/v1/renewals", nil, Concerned, 0, "wishes for a later end of an eligibility: the caller's own; all for stewards"},
		{RouteHosts, http.MethodGet, "/v1/hosts", nil, Person, 0, "the enrolled hosts with their enrolment proofs"},
		{RouteWatch, http.MethodGet, "/v1/watch", []string{"after"}, PersonOrHost, 0, "a stream of frames after an index"},
		{RouteCheckpoint, http.MethodGet, "/v1/checkpoint", nil, KeeperOrHost, 0, "the newest signed checkpoint of this broker's record"},
		{RouteTile, http.MethodGet, "/v1/tile/{path...}", nil, KeeperOrHost, 0, "a tile of the record; bundles of entries not for hosts"},
		{RouteCluster, http.MethodGet, "/v1/cluster", nil, Keeper, 0, "the brokers: who leads, who votes, who answers, and how far behind"},
		{RouteHealth, http.MethodGet, "/healthz", nil, Anyone, 0, "whether this broker can answer"},
		{RoutePeerIndex, http.MethodGet, "/v1/peer/index", nil, Broker, 0, "how many events there are; only from the broker that leads"},
		{RoutePeerEvents, http.MethodGet, "/v1/peer/events", []string{"from"}, Broker, 0, "committed events from an index on, as this broker has them"},
		{RoutePeerSum, http.MethodGet, "/v1/peer/sum", []string{"of"}, Broker, 0, "the sum of the first so many events"},
		{RoutePeerStatus, http.MethodGet, "/v1/peer/status", []string{"after"}, Broker, 0, "how this broker is, by its own word"},
	}
}

// Headers that carry a read's proof: base64 of a JSON proof.
const (
	HeaderProof   = "PIM-Proof"   // a read statement, signed by the person's key or the session's
	HeaderSession = "PIM-Session" // the session statement whose key signed the read, when one did
)

// HeaderPassed says that another broker passed a request on, because it does not lead. It confers nothing: it is
// not passed on again.
const HeaderPassed = "PIM-Passed"

// HeaderSource is the address that a passed-on request came from, by the word of the broker that passed it on. It is believed
// only on a connection of a broker that the policy lists.
const HeaderSource = "PIM-Source"

// MaxHeaderProof is the largest decoded header proof in bytes.
const MaxHeaderProof = 12 << 10
