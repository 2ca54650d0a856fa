#!/bin/sh
# Every way to watch, in the shell. Usage: fantail-state run -- state_watchers.sh
set -eu
fantail-state load <<'J'
{"level": "info", "price": 50, "ready": false, "list": []}
J
from=$(fantail-state info | sed 's/.*"revision":\([0-9]*\).*/\1/')
from=$((from + 1))
fantail-state set price 45
fantail-state set price 39
fantail-state set ready true
fantail-state set level '"debug"'
fantail-state append list 1
fantail-state del level

key() { sed 's/.*"key":"\([^"]*\)".*/\1/' | tr '\n' ' '; }
all="--from $from"
echo "all: $(fantail-state watch $all --count 6 | key)"
echo "some: $(fantail-state watch $all --count 2 price | key)"
echo "not these: $(fantail-state watch $all --count 4 --exclude price | key)"
echo "prefix: $(fantail-state watch $all --count 3 --prefix l | key)"
echo "truthy: $(fantail-state watch $all --count 1 ready --when truthy | key)"
echo "equal: $(fantail-state watch $all --count 1 level --when equal --value '"debug"' | key)"
echo "absent: $(fantail-state watch $all --count 1 level --when absent | key)"
echo "test: $(fantail-state wait --if '/price < 40 && /ready' >/dev/null && echo it holds)"
echo "command: $(fantail-state watch $all --count 2 price -- sh -c 'sed "s/.*\"after\":\([0-9]*\).*/\1/"' | tr '\n' ' ')"
