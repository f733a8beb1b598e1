package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"pim-ssh/broker/statement"
)

func (c *changes) role(name statement.RoleName) {
	before, known := c.old.Roles[name]
	after, stays := c.new.Roles[name]
	if !stays {
		c.say("role %s is gone", name)
		c.standing(name)
		return
	}
	if !known {
		c.say("role %s is new", name)
	}
	c.standing(name)
	c.reach(name, before, after)
	c.sudo(name, before.Sudo, after.Sudo)
	c.changed(name, "needs", quorum(before), quorum(after))
	if known {
		c.changed(name, "may be asked for by", eligible(before), eligible(after))
	}
	c.changed(name, "lasts at most", duration(before.Longest), duration(after.Longest))
	c.changed(name, "lasts, unless asked otherwise,", duration(before.Default), duration(after.Default))
	c.changed(name, "waits unanswered at most", duration(before.Pending), duration(after.Pending))
	c.changed(name, "on a host cut off from brokers starts", offline(before.Offline), offline(after.Offline))
	c.changed(name, "permits", list(before.Permit), list(after.Permit))
	c.limits(name, before, after)
}

// changed says that a role's field reads differently.
func (c *changes) changed(role statement.RoleName, what, before, after string) {
	if before != after {
		c.say("%s %s %s%s", role, what, after, was(before))
	}
}

// reach says on which hosts and as whom.
func (c *changes) reach(role statement.RoleName, before, after Role) {
	c.changed(role, "reaches", selected(before.Hosts), selected(after.Hosts))
	gone, come := apart(before.Accounts, after.Accounts)
	for _, account := range come {
		c.say("%s now logs in as %s", role, account)
	}
	for _, account := range gone {
		c.say("%s no longer logs in as %s", role, account)
	}
}

func (c *changes) sudo(role statement.RoleName, before, after []SudoRule) {
	old, new := commands(before), commands(after)
	for _, account := range either(old, new) {
		gone, come := apart(old[account], new[account])
		for _, command := range come {
			c.say("%s now runs as %s: %s", role, account, command)
		}
		for _, command := range gone {
			c.say("%s no longer runs as %s: %s", role, account, command)
		}
	}
}

func commands(rules []SudoRule) map[statement.Account][]Command {
	by := map[statement.Account][]Command{}
	for _, rule := range rules {
		by[rule.As] = append(by[rule.As], rule.Commands...)
	}
	return by
}

func selected(s Selector) string {
	var parts []string
	if s.Any {
		parts = append(parts, "any host")
	}
	if len(s.Names) > 0 {
		parts = append(parts, "the hosts "+list(s.Names))
	}
	for _, label := range slices.Sorted(maps.Keys(s.Labels)) {
		parts = append(parts, "hosts with "+label+"="+s.Labels[label])
	}
	return strings.Join(parts, " and ")
}

func offline(o Offline) string {
	switch {
	case o.Mode == OfflineStrict && o.Grace == 0:
		return "nothing"
	case o.Mode == OfflineGrace:
		return "for " + duration(o.Grace) + " more"
	case o.Mode == OfflineWindow && o.Grace == 0:
		return "to the window's end"
	case o.Mode == "" && o.Grace == 0:
		return ""
	}
	return fmt.Sprintf("%s %s", o.Mode, duration(o.Grace))
}

// duration writes seconds in the largest unit that divides them: 4h, 15m, 90s.
func duration(d statement.Seconds) string {
	for _, unit := range []struct {
		seconds statement.Seconds
		letter  string
	}{{statement.Day, "d"}, {3600, "h"}, {60, "m"}} {
		if d != 0 && d%unit.seconds == 0 {
			return fmt.Sprintf("%d%s", d/unit.seconds, unit.letter)
		}
	}
	if d == 0 {
		return ""
	}
	return fmt.Sprintf("%ds", d)
}
