#!/bin/sh
# Each process waits for the one before it, and wakes the next. Usage: fantail-state run --count 5 -- chain_reaction.sh
set -eu
me=$FANTAIL_INDEX
if [ "$me" -gt 0 ]; then
  fantail-state wait "fired/$((me - 1))" --when truthy --timeout 60 >/dev/null
fi
fantail-state append order "$me" >/dev/null
fantail-state set "fired/$me" true
if [ "$me" -eq 4 ]; then fantail-state get order; fi
