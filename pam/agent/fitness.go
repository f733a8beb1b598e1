package agent

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
)

// sudoFloor is the oldest sudo under which this host grants: below it there are known ways to run more than a rule says
// (CVE-2023-22809, CVE-2023-28486, CVE-2023-28487), and nothing here was tried with it.
var sudoFloor = [3]int{1, 9, 13}

var sudoVersion = regexp.MustCompile(`^visudo version (\d{1,3})\.(\d{1,3})(?:\.(\d{1,3}))?`)

// fit reports why this machine's sudo is not fit to grant with. Visudo is of the same build and says its version to a
// process that, like ours, may not change its uid; sudo does not.
func (t Tools) fit(ctx context.Context) error {
	out, err := run(ctx, nil, t.Visudo, "-V")
	if err != nil {
		return err
	}
	return checkSudo(string(out))
}

// checkSudo reads the first line of `visudo -V`.
func checkSudo(said string) error {
	m := sudoVersion.FindStringSubmatch(said)
	if m == nil {
		return fmt.Errorf("visudo -V says %.40q, which is no version", said)
	}
	for i, floor := range sudoFloor {
		got, _ := strconv.Atoi(m[i+1]) // at most three digits, or none: 0
		if got > floor {
			return nil
		}
		if got < floor {
			return fmt.Errorf("sudo is %s, at least %d.%d.%d is needed: apt-get install sudo", m[0][len("visudo version "):], sudoFloor[0], sudoFloor[1], sudoFloor[2])
		}
	}
	return nil
}
