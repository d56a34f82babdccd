# test.sh SITE: what must be true of the site before it becomes an image.
set -eu
cd "$1"
fail() { echo "FAILED: $*" >&2; exit 1; }

[ -s index.html ] || fail "there is no index.html"
[ ! -e prices.html ] || fail "a draft was published"
grep -q '<h1>The Brickyard</h1>' index.html || fail "index.html has no heading"
grep -q 'clay &amp; fire' index.html || fail "index.html is not escaped"
sha256sum -c SHA256SUMS >/dev/null || fail "a checksum is wrong"
[ "$(wc -c < signature.txt)" -eq 65 ] || fail "the site is not signed"

for page in *.html; do
    grep -q '@[A-Z]*@' "$page" && fail "$page: a placeholder is left"
    sed -n 's/.*href="\([^"]*\)".*/\1/p' "$page" | while read -r link; do
        [ -e "$link" ] || fail "$page: $link is not there"
    done
done
echo "all pages are good"
