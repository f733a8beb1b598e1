package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker/statement"
)

func (c *checker) brokers() {
	if len(c.doc.Brokers) == 0 {
		c.say(at("brokers"), "names no broker: nobody could ask for anything")
	}
	c.machines = map[statement.Key]string{}
	addresses := map[string]statement.BrokerName{}
	for _, name := range slices.Sorted(maps.Keys(c.doc.Brokers)) {
		broker, path := c.doc.Brokers[name], at("brokers", string(name))
		if _, err := statement.ParseBrokerName(string(name)); err != nil {
			c.say(path, "%v", err)
		}
		if !dialable(broker.Address) {
			c.say(below(path, "address"), "%q is not host:port, such as b1.example.org:7443", broker.Address)
		}
		if other, taken := addresses[broker.Address]; taken {
			c.say(below(path, "address"), "is already the address of broker %s", other)
		}
		addresses[broker.Address] = name
		c.machineKey(below(path, "identity"), broker.Identity)
		c.machineKey(below(path, "ca"), broker.CA)
		c.machineKey(below(path, "log"), broker.Log)
	}
}

// dialable reports whether the text is a host name or an IP address with a port.
func dialable(address string) bool {
	at := strings.LastIndexByte(address, ':')
	if at < 0 {
		return false
	}
	host, port := address[:at], address[at+1:]
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 || strconv.FormatUint(number, 10) != port {
		return false
	}
	if inner, bracketed := strings.CutPrefix(host, "["); bracketed {
		ip, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		return err == nil && ip.Is6() && ip.Zone() == "" && host == "["+ip.String()+"]"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Is4()
	}
	_, err := statement.ParseHostName(host)
	return err == nil
}

// machineKey holds a broker's key to one purpose: two brokers, a broker and its CA, a broker and a person never share.
func (c *checker) machineKey(path []string, key statement.Key) {
	if _, err := statement.ParseKey(string(key)); err != nil {
		c.say(path, "%v", err)
		return
	}
	if path[2] == "identity" && key.Type() != ssh.KeyAlgoED25519 {
		c.say(path, "must be an ssh-ed25519 key, as TLS uses it")
	}
	if path[2] == "log" && key.Type() != ssh.KeyAlgoED25519 {
		c.say(path, "must be an ssh-ed25519 key, as signed notes use it")
	}
	if key.SecurityKey() {
		c.say(path, "is a security key, which no machine can touch")
	}
	if owner, held := c.doc.KeyOwner(key); held {
		c.say(path, "is a key of %s: people and brokers never share one", owner)
	}
	if other, taken := c.machines[key]; taken {
		c.say(path, "is already the %s: every key has one purpose", other)
	}
	c.machines[key] = path[2] + " of broker " + path[1]
}

func (c *checker) role(name statement.RoleName, role Role) {
	path := at("roles", string(name))
	if _, err := statement.ParseRoleName(string(name)); err != nil {
		c.say(path, "%v", err)
	}
	c.selector(below(path, "hosts"), role.Hosts)
	if len(role.Accounts) == 0 && len(role.Sudo) == 0 {
		c.say(path, "gives nothing: it needs accounts or sudo")
	}
	c.given(below(path, "accounts"), role.Accounts)
	c.sudo(below(path, "sudo"), role.Sudo)
	c.names(below(path, "eligible"), role.Eligible)
	if len(role.Eligible)+len(role.Dated)+len(role.Active) == 0 {
		c.say(below(path, "eligible"), "names nobody who may ask")
	}
	c.quorum(path, name, role)
	c.limits(path, name, role)
	c.durations(path, role)
	c.offline(below(path, "offline"), role.Offline)
	if len(role.Permit) > 0 {
		c.say(below(path, "permit"), "is not enforced yet, so it must be empty")
	}
}

func (c *checker) selector(path []string, s Selector) {
	switch {
	case s.Any && len(s.Names)+len(s.Labels) > 0, len(s.Names) > 0 && len(s.Labels) > 0:
		c.say(path, "is exactly one of any, names and labels")
	case !s.Any && len(s.Names)+len(s.Labels) == 0:
		c.say(path, "selects no host: write any, names or labels")
	}
	set(c, below(path, "names"), s.Names)
	for _, host := range s.Names {
		if _, err := statement.ParseHostName(string(host)); err != nil {
			c.say(below(path, "names", string(host)), "%v", err)
		}
	}
	if len(s.Labels) > statement.MaxLabels {
		c.say(below(path, "labels"), "are %d: at most %d", len(s.Labels), statement.MaxLabels)
	}
	for _, label := range slices.Sorted(maps.Keys(s.Labels)) {
		if err := statement.CheckLabels(map[string]string{label: s.Labels[label]}); err != nil {
			c.say(below(path, "labels", label), "%v", err)
		}
	}
}

// given holds accounts that a role gives to be a set of names a host may govern.
func (c *checker) given(path []string, accounts []statement.Account) {
	set(c, path, accounts)
	for _, account := range accounts {
		if _, err := statement.ParseAccount(string(account)); err != nil {
			c.say(below(path, string(account)), "%v", err)
		}
		if why, is := reserved[account]; is && account != "root" {
			c.say(below(path, string(account)), "%s is %s, and no role gives it", account, why)
		}
	}
}

func (c *checker) sudo(path []string, rules []SudoRule) {
	runAs := make([]statement.Account, len(rules))
	for i, rule := range rules {
		runAs[i] = rule.As
		commands := below(path, string(rule.As), "commands")
		if len(rule.Commands) == 0 {
			c.say(commands, "names no command: write ALL or exact commands")
		}
		if slices.Contains(rule.Commands, All) && len(rule.Commands) > 1 {
			c.say(commands, "ALL stands alone: it covers the others")
		}
		set(c, commands, rule.Commands)
		for _, command := range rule.Commands {
			if _, err := ParseCommand(string(command)); err != nil {
				c.say(below(commands, string(command)), "%v", err)
			}
		}
	}
	c.given(path, runAs)
}

// names holds a list of groups and people to be a set of names that mean somebody.
func (c *checker) names(path []string, names []Name) bool {
	set(c, path, names)
	all := true
	for _, name := range names {
		all = c.name(below(path, string(name)), name) && all
	}
	return all
}

// name holds a name to mean somebody.
func (c *checker) name(path []string, name Name) bool {
	_, isGroup := c.doc.Groups[GroupName(name)]
	_, isPerson := c.doc.People[statement.Person(name)]
	if isGroup || isPerson {
		return true
	}
	hint := cmp.Or(hinted(c, string(name), c.doc.Groups), hinted(c, string(name), c.doc.People))
	c.say(path, "%q is neither a group nor a person%s", name, hint)
	return false
}

func (c *checker) durations(path []string, role Role) {
	if role.Longest < 1 || role.Longest > MaxWindow {
		c.say(below(path, "longest"), "must be between 1s and 7d")
	}
	if role.Default < 1 || role.Default > role.Longest {
		c.say(below(path, "default"), "must be between 1s and longest")
	}
	if role.Pending < 1 || role.Pending > MaxWindow {
		c.say(below(path, "pending"), "must be between 1s and 7d")
	}
}

func (c *checker) offline(path []string, offline Offline) {
	switch offline.Mode {
	case OfflineStrict, OfflineWindow:
		if offline.Grace != 0 {
			c.say(path, "only grace has a duration")
		}
	case OfflineGrace:
		if offline.Grace < 1 || offline.Grace > MaxWindow {
			c.say(path, "grace must be between 1s and 7d")
		}
	default:
		c.say(path, "must be strict, {grace: DURATION} or window")
	}
}
