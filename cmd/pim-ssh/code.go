package main

import (
	"context"
	"errors"
	"strings"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/cmd/pim-ssh/term"
)

// codeToAsk reports whether a request needs a code of the asker's.
func codeToAsk(doc *policy.Document, r statement.Request) bool {
	return doc.Roles[r.Role].Factors.Ask == policy.TOTP && !doc.ActiveFor(r.Person, r.Role, r.Hosts, max(r.Created, r.At))
}

// code is the code that was typed, or is asked for where a role wants one. What nobody wants is not sent.
func (c *contact) code(ctx context.Context, typed string, role statement.RoleName, wanted bool) (string, error) {
	switch {
	case !wanted && typed != "":
		c.term.Say("%s wants no code: it is not sent", role)
		return "", nil
	case !wanted || typed != "":
		return plainCode(typed), nil
	}
	answer, err := c.term.Ask(ctx, string(role)+" wants a code of your authenticator app, or a recovery code")
	if errors.Is(err, term.ErrNoInput) {
		return "", usage("the same command with --totp CODE", "%s wants a code of your authenticator app, and %v", role, err)
	}
	if err != nil {
		return "", err
	}
	if answer = plainCode(answer); answer == "" {
		return "", usage("the same command with --totp CODE", "%s wants a code of your authenticator app", role)
	}
	return answer, nil
}

// plainCode is a code as it is spelled, without the blanks that apps and people put into it.
func plainCode(typed string) string { return strings.ToLower(strings.ReplaceAll(typed, " ", "")) }
