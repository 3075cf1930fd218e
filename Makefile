# Keelson's commands. `make` lists them; each needs Go alone.

GO      ?= go
FUZZTIME ?= 60s
SEEDS    ?= 200
WASM_SEEDS ?= 10
CHAOS    ?= 1h
TOOL     = $(GO) tool -modfile=tools/go.mod

.DEFAULT_GOAL := help
.PHONY: help build run autohealing test examples lint bench resource-bench benchstat fuzz check sim wasm chaos planted failcalls cover kinds differential k8s leaderkill clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 15

build: ## build kvd, kvctl, waldump and kvcheck into bin/
	@mkdir -p bin
	$(GO) build -o bin/ ./cmd/...

run: build ## start a cluster of three on loopback; Ctrl-C stops it
	@$(GO) build -o bin/cluster ./scripts
	@exec bin/cluster -kvd bin/kvd -dir local.kvd

autohealing: ## ten replicas stay alive while pods are deleted and leaders killed; Ctrl-C stops it
	@mkdir -p bin
	$(GO) build -o bin/ ./cmd/kvd
	cd examples && $(GO) build -o ../bin/ ./autohealing
	@exec bin/autohealing -kvd bin/kvd

test: ## all tests with the race detector, 500 new inputs for each fuzz target, and check
	$(GO) vet ./...
	$(GO) test -race -timeout 10m ./...
	@GO="$(GO)" FUZZTIME=500x scripts/fuzz.sh
	$(MAKE) check
	$(MAKE) -C compat test

examples: ## vet and test the examples, a module of their own that links client-go
	cd examples && $(GO) vet ./... && $(GO) test -race -count=1 ./...

lint: ## gofmt, go vet, staticcheck, and govulncheck if its database can be reached
	@bad=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$bad" ]; then echo "gofmt these files:"; echo "$$bad"; exit 1; fi
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	@GO="$(GO)" scripts/vulncheck.sh

fuzz: ## run every fuzz target for FUZZTIME (60s)
	@GO="$(GO)" FUZZTIME=$(FUZZTIME) scripts/fuzz.sh

bench: ## etcd and kvd side by side on this machine, with ratios
	$(MAKE) -C compat bench

resource-bench: ## the resource layer beside a kube-apiserver over etcd (the first build takes ten minutes)
	$(MAKE) -C compat resource-bench

kinds: ## write the field table of Kubernetes' kinds anew (api/kinds), from the versions in compat/kinds/go.mod
	cd compat/kinds && $(GO) run . -o ../../api/kinds/table.deflate -objects ../../api/kinds/testdata/registry.txt

benchstat: ## compare the micro-benchmarks with those of BASE (the last release, else the commit before)
	@GO="$(GO)" scripts/benchstat.sh

differential: ## send generated requests to etcd and kvd (N=...) and compare the answers
	$(MAKE) -C compat differential

k8s: ## run the storage, watch cache and registry suites of k8s.io/apiserver against kvd
	$(MAKE) -C compat k8s

leaderkill: ## kill the leader KILLS times under load and look for what is missing
	$(MAKE) -C compat leaderkill

check: ## the simulator's saved schedules, the commit's 200 seeds and fast planted bugs
	@mkdir -p bin
	$(GO) build -o bin/chaos ./cmd/chaos
	bin/chaos check

sim: ## simulate SEEDS (200) clusters with faults, each from a fresh seed
	$(GO) run ./cmd/chaos sim -seeds $(SEEDS)

wasm: ## run WASM_SEEDS (10) clusters of whole members as WebAssembly, each from a fresh seed; some 20 s of CPU a seed
	$(GO) -C chaos/wasm run . -seeds $(WASM_SEEDS)

chaos: ## break clusters of real processes for CHAOS (1h), with pairs of faults by chance; Linux, root
	$(GO) build -o bin/chaos ./cmd/chaos
	bin/chaos real -fault mixed -for $(CHAOS)

planted: ## prove that the simulator sees the bugs of package planted
	$(GO) run ./cmd/chaos planted -results docs/results/planted.json

failcalls: ## fail every call of the file system that a member makes, one after the other; ten minutes to an hour of a core
	$(GO) run ./cmd/chaos failcalls -results docs/results/calls.json

cover: ## count the blocks of raft, log and store that their tests and the simulator's reach
	$(GO) run ./cmd/chaos cover -results docs/results/cover.json

clean: ## remove what was built
	rm -rf bin
