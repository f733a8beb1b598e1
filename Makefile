# pim-ssh. `make help` lists the targets; everything they need comes from Debian (make deps) and the Go module proxy.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PACKAGES := debootstrap systemd-container iproute2 util-linux gcc libc6-dev libpam0g-dev binutils sudo openssh-server openssh-client shellcheck git oathtool
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
NFPM := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
VERSION := 0.1.0
CC := gcc
CFLAGS := -std=c11 -O2 -g -Wall -Wextra -Werror -Wshadow -Wconversion -Wcast-qual -Wstrict-prototypes -Wvla -fvisibility=hidden \
  -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection -Wl,-z,relro,-z,now,-z,noexecstack -ffile-prefix-map=$(CURDIR)=.
GO_BUILD := go build -trimpath -buildvcs=false -ldflags='-s -w -X main.version=$(VERSION)'
PROCESSES := ./cmd/pim-brokerd ./pam/pamtest
RACED := ./broker ./broker/api ./broker/edge/... ./broker/effect ./broker/policy ./broker/statement ./cluster
# Not watched by the race detector: what one goroutine does alone, byte after byte of one file or step after step of one value
# (unit has it), and, which costs a third of its time, Go's own curve arithmetic, which sees no memory of ours.
ALONE := ^TestEach(AlteredByte|Truncation)|^TestAThousandFlippedBytes|^TestHistoryCosts|^TestInEveryHistory|^TestRandomPolicies|^TestTheReserveHolds
CURVE := crypto/internal/fips140/edwards25519/...
RUN ?= .
FUZZTIME ?= 30s
SOAK ?= 10
SEED ?= 1
SEEDS ?= $(if $(filter-out 0,$(MINUTES)),1000000000,1000)
MINUTES ?= 0
.PHONY: help deps build pim-ssh pim-brokerd pim-hostd package check lint unit race test process-test chaos-test lab-test demo fuzz bench soak lab-soak clean

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 16

deps: ## install what is missing from Debian; silent and instant when nothing is; starts no service
	@missing=$$(for p in $(PACKAGES); do [ "$$(dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null)" = installed ] || echo $$p; done)
	[ -n "$$missing" ] || exit 0
	[ $$EUID = 0 ] || { echo "make deps: as root: apt-get install" $$missing >&2; exit 1; }
	if [ ! -e /usr/sbin/policy-rc.d ]; then
	  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
	  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing >/dev/null

build: pim-ssh pim-brokerd pim-hostd build/pam_pim.so build/pim-principals ## everything we install, into build/
pim-ssh pim-brokerd: # neither needs C
	@CGO_ENABLED=0 $(GO_BUILD) -o build/ ./cmd/$@
pim-hostd:
	@CGO_ENABLED=1 $(GO_BUILD) -o build/ ./cmd/$@
build/pam_pim.so: $(addprefix pam/module/,pam_pim.c governed.c cgroup.c client.c client.h host.h) Makefile
	@mkdir -p build && $(CC) $(CFLAGS) -shared -fPIC -Wl,-z,defs -o $@.$$$$ $(filter %.c,$^) -lpam && mv $@.$$$$ $@
build/pim-principals: pam/module/pim_principals.c pam/module/client.c pam/module/client.h Makefile
	@mkdir -p build && $(CC) $(CFLAGS) -fPIE -pie -o $@.$$$$ $(filter %.c,$^) && mv $@.$$$$ $@

package: build ## the Debian packages, into build/: the same bytes for the same commit
	@VERSION=$(VERSION) NFPM=$(NFPM) packaging/nfpm/build.sh

check: lint unit race ## vet, staticcheck, layout, unit tests, the rules under the race detector too
lint: deps
	@unformatted=$$(gofmt -l $(wildcard broker certs cluster cmd pam packaging)); [ -z "$$unformatted" ] || { echo "gofmt -w" $$unformatted >&2; exit 1; }
	go vet -tags lab ./... && shellcheck -x -P packaging/lab packaging/lab/lab packaging/lab/*.sh packaging/nfpm/{build.sh,*.{postinst,prerm,postrm}} .ci/*
	go run $(STATICCHECK) -tags lab ./...
unit: # -short: a fifth of the random runs; all of them in make lab-soak. Chaos has a target of its own
	@.ci/gotest -short -p 6 $$(go list ./... | grep -vxF "$$(go list $(PROCESSES) ./cluster/clustertest)")
race:
	@.ci/gotest -short -p 6 -race '-gcflags=$(CURVE)=-race=0' -skip '$(ALONE)' $(RACED)

test: check chaos-test process-test lab-test ## everything
chaos-test: deps ## twenty seeds of chaos in virtual time
	@.ci/gotest -count=1 ./cluster/clustertest
process-test: deps ## the tests that drive real brokers, sshd, sudo and su on this machine
	@.ci/gotest -short $(PROCESSES)
lab-test: deps ## the tests on real machines; RUN=TestName picks
	@.ci/gotest -tags lab -count=1 -parallel 6 -timeout 60m -run '$(RUN)' ./packaging/lab/...

demo: deps ## the story, told on real machines
	@packaging/lab/demo
fuzz: deps ## every fuzz target for FUZZTIME (30s)
	@.ci/fuzz $(FUZZTIME)
bench: deps ## every benchmark, those on real machines included
	@go test -tags lab -timeout 60m -run '^$$' -bench . ./...
soak: deps ## chaos in virtual time: SEEDS (1000) seeds from SEED (1) on, MINUTES at most; a bad one's history is kept in build/
	@mkdir -p build
	go test -count=1 -v -timeout 0 ./cluster/clustertest -run '^TestChaos$$' -seeds $(SEEDS) -first $(SEED) -minutes $(MINUTES) -keep '$(CURDIR)/build' | grep -vE '^(=== |PASS| *--- PASS)'
lab-soak: deps ## every random run, then the tests on real machines, SOAK (10) times over
	@.ci/gotest -count=1 -timeout 30m ./...
	for i in $$(seq $(SOAK)); do $(MAKE) -s lab-test; done
	LAB_SOAK=1 .ci/gotest -tags lab -count=1 -timeout 60m -run TestBrokers ./packaging/lab # 200 kills and what else takes long; LAB_SEED=n
clean: ## forget build/ and the cached Debian tree
	@! grep -qsF '$(CURDIR)/.cache/' /run/pim-lab/*/tree || { echo "make clean: a lab stands on .cache; first: LAB=name packaging/lab/lab down" >&2; exit 1; }
	rm -rf --one-file-system build .cache
.ONESHELL:
