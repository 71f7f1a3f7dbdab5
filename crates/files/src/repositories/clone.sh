# Clones a repository inside a sandbox that has no network: what git says to the repository's host goes to a port of
# the loopback address, behind which the server is. The clone remembers that way, so that a fetch or a push takes it
# too. The last word on standard output is how it ended, and what git said.
set -u
exec 4>&1 </dev/null >/dev/null
url=$1 way=$2 target=$3 kind=$4 ref=$5
said= work=

finish() {
    {
        printf '%s\n' "$1"
        [ -z "$said" ] || tail -c 4000 "$said"
    } >&4
    rm -rf -- ${said:+"$said"} ${work:+"$work"}
    exit 0
}

# It is there from before, perhaps with work in it.
[ -e "$target" ] && finish 'done'
said=$(mktemp) || finish clone
parent=$(dirname "$target")
mkdir -p "$parent" 2>"$said" || finish clone
# What an attempt has left that was cut off.
rm -rf -- "$parent"/.oma-clone-*
command -v git >/dev/null || {
    echo 'there is no git in the sandbox; have the environment install it' >"$said"
    finish clone
}
[ -x "$(git --exec-path)/git-remote-http" ] || {
    echo 'the git in the sandbox can not speak HTTP; have the environment install a whole one' >"$said"
    finish clone
}
work=$(mktemp -d "$parent/.oma-clone-XXXXXX" 2>"$said") || finish clone
export GIT_TERMINAL_PROMPT=0 GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
git clone --quiet --no-checkout --template= --config "url.$way.insteadOf=$url" --config "http.$way.proxy=" \
    -- "$url" "$work/it" 2>"$said" || finish clone
cd "$work/it" || finish clone
case $kind in
    branch)
        git rev-parse --quiet --verify "refs/remotes/origin/$ref" || {
            echo "it has no branch $ref" >"$said"
            finish checkout
        }
        git checkout --quiet -B "$ref" --track "refs/remotes/origin/$ref" 2>"$said" || finish checkout
        ;;
    commit)
        # Hosts give commits that no branch leads to when they are asked for them.
        git cat-file -e "$ref^{commit}" 2>/dev/null || git fetch --quiet origin "$ref" 2>"$said" || finish checkout
        git checkout --quiet --detach "$ref" -- 2>"$said" || finish checkout
        ;;
    # A repository may be empty.
    *) ! git rev-parse --quiet --verify HEAD || git checkout --quiet 2>"$said" || finish checkout ;;
esac
cd / && mv -T -- "$work/it" "$target" 2>"$said" || finish clone
finish 'done'
