// Package enforce is what pim-ssh writes into a host's /etc, and takes back.
//
// It decides, from the policy and the host's own labels alone, which accounts are governed and what sshd, sudo, PAM,
// cron, at and systemd must say about them; it writes that by rename only, has each tool re-parse its own file, and
// takes everything back when any check fails. It never judges a grant, never talks to a broker, and never edits a file
// that somebody else owns, but for a line in cron.deny and at.deny, and
// one before pam_systemd where a PAM service calls it by itself. It sits beside pam/agent, which owns
// /run and the spool; cmd/pim-hostd calls both.
//
// Read plan.go first (what follows from policy), then apply.go (the order, and the way back).
package enforce
