# Shared by scripts/lan-producer and scripts/lan-consumer, which source it.
# shellcheck shell=bash

# Prints the value that OPTION has among ARGS, as "--x VALUE" or "--x=VALUE"; fails when it is absent.
lan_value() {  # OPTION ARGS...
  local option=$1
  while shift && [[ $# -gt 0 ]]; do
    case $1 in
      "$option") echo "${2:-}"; return ;;
      "$option="*) echo "${1#*=}"; return ;;
    esac
  done
  return 1
}

# Becomes PROGRAM (of build/release, else of PATH), on epgm and the interface of the default route
# unless ARGS say otherwise. A --config FILE among them is not looked into: what it says of these two is overridden.
lan_run() {  # PROGRAM ARGS...
  local program=$1 root path transport interface defaults=()
  shift
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  path=$root/build/release/bin/$program
  [[ -x $path ]] || path=$(command -v "$program") || {
    echo "$program is neither in build/release/bin nor on PATH; build it: scripts/build release" >&2
    exit 1
  }
  transport=$(lan_value --transport "$@") || {
    transport=epgm
    defaults+=(--transport epgm)
  }
  if [[ $transport == epgm ]] && ! lan_value --interface "$@" >/dev/null; then
    interface=$(ip -4 -oneline route show default | sed -n '1s/.* dev \([^ ]*\).*/\1/p')
    [[ -n $interface ]] || {
      echo "this host has no default route; choose one of these with --interface:" >&2
      ip -brief -4 address >&2
      exit 1
    }
    defaults+=(--interface "$interface")
  fi
  echo "+ $program ${defaults[*]} $*" >&2
  exec "$path" "${defaults[@]}" "$@"
}
