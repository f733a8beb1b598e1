package main

import (
	"context"
	"errors"
	"strings"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/cmd/pim-ssh/term"
)

// codeWanted is what a role wants of a statement's code.
type codeWanted struct {
	role  statement.RoleName
	is    bool
	fresh statement.Seconds // for so long an earlier one serves
}

// codeToAsk is what the role wants of a request.
func codeToAsk(doc *policy.Document, r statement.Request) codeWanted {
	factors := doc.Roles[r.Role].Factors
	is := factors.Ask == policy.TOTP && !doc.ActiveFor(r.Person, r.Role, r.Hosts, max(r.Created, r.At))
	return codeWanted{role: r.Role, is: is, fresh: factors.Fresh}
}

// codeToApprove is what the role wants of a yes.
func codeToApprove(doc *policy.Document, role statement.RoleName) codeWanted {
	factors := doc.Roles[role].Factors
	return codeWanted{role: role, is: factors.Approve == policy.TOTP, fresh: factors.Fresh}
}

// code is the code that was typed, or is asked for where a role wants one. What nobody wants is not sent.
func (c *contact) code(ctx context.Context, typed string, wanted codeWanted) (string, error) {
	switch {
	case !wanted.is && typed != "":
		c.term.Say("%s wants no code: it is not sent", wanted.role)
		return "", nil
	case !wanted.is || typed != "":
		return plainCode(typed), nil
	}
	if err := c.mayProve(ctx, wanted.role); err != nil {
		return "", err
	}
	prompt := string(wanted.role) + " wants a code of your authenticator app, or a recovery code"
	if wanted.fresh > 0 {
		prompt += " (none, if you typed one within " + span(wanted.fresh) + ")"
	}
	answer, err := c.term.Ask(ctx, prompt)
	if errors.Is(err, term.ErrNoInput) && wanted.fresh > 0 {
		return "", nil // brokers know whether the last one still serves
	}
	if errors.Is(err, term.ErrNoInput) {
		return "", usage("the same command with --totp CODE", "%s wants a code of your authenticator app, and %v", wanted.role, err)
	}
	if answer = plainCode(answer); err == nil && answer == "" && wanted.fresh == 0 {
		return "", usage("the same command with --totp CODE", "%s wants a code of your authenticator app", wanted.role)
	}
	return answer, err
}

// mayProve says early why no code of the person's would be taken, by the brokers' word: they check codes.
func (c *contact) mayProve(ctx context.Context, role statement.RoleName) error {
	factor, err := c.factor(ctx)
	switch now := c.clock(); {
	case err != nil:
		return err
	case !factor.Enrolled:
		return denied("pim-ssh totp enrol", "%s wants a code of your authenticator app, and you have not enrolled one", role)
	case factor.LockedUntil > now:
		return denied("wait, or ask an operator: pim-ssh totp reset "+string(c.person), "your codes are locked until %s: too many were wrong", moment(factor.LockedUntil, now))
	}
	return nil
}

// plainCode is a code as it is spelled, without the blanks that apps and people put into it.
func plainCode(typed string) string { return strings.ToLower(strings.ReplaceAll(typed, " ", "")) }
