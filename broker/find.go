package broker

import (
	"slices"
	"strings"
)

// FindRequest returns the one request whose id starts with what somebody typed: "r-7k2", "g-7k2" or "7k2".
// Missing when there is none, Conflict when there are several.
func (s *State) FindRequest(prefix string) (Request, error) {
	return s.findPrefix("request", prefix, func(*Request) bool { return true })
}

// FindGrant returns the one request that became a grant and whose id starts with what somebody typed, as FindRequest.
func (s *State) FindGrant(prefix string) (Request, error) {
	return s.findPrefix("grant", prefix, func(r *Request) bool { return r.Grant != nil })
}

func (s *State) findPrefix(what, prefix string, wanted func(*Request) bool) (Request, error) {
	start := strings.TrimPrefix(strings.TrimPrefix(prefix, requestPrefix), grantPrefix)
	if start == "" || len(start) > stemLength || strings.Trim(start, stemAlphabet) != "" {
		return Request{}, Refuse(Invalid, "pim-ssh status", "%s %.40q: want the start of an id such as r-7k2m9", what, prefix)
	}
	var found []Stem
	for stem, r := range s.requests {
		if strings.HasPrefix(string(stem), start) && wanted(r) {
			found = append(found, stem)
		}
	}
	switch len(found) {
	case 0:
		return Request{}, Refuse(Missing, "pim-ssh status", "no %s %s", what, prefix)
	case 1:
		return *s.requests[found[0]], nil
	}
	slices.Sort(found)
	return Request{}, Refuse(Conflict, "type more of the id", "%s %s could be %s or %s", what, prefix, found[0], found[1])
}
