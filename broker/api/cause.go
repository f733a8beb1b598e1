package api

import (
	"errors"
	"net"
	"net/url"
	"strings"
)

// brief says in one line which brokers were asked and what came of each.
func brief(causes []error) string {
	said := make([]string, len(causes))
	for i, cause := range causes {
		said[i] = words(short(cause))
	}
	return strings.Join(said, "; ")
}

// short is a cause without what net/http and net say before it: the method, and path and address once more.
func short(cause error) string {
	var asking *url.Error
	if !errors.As(cause, &asking) {
		return cause.Error()
	}
	address, why := asking.URL, asking.Err
	if asked, err := url.Parse(asking.URL); err == nil {
		address = asked.Host
	}
	var dialling *net.OpError
	if errors.As(why, &dialling) {
		why = dialling.Err
	}
	return address + ": " + why.Error()
}
