# Stands in for nvcc while Rust is only checked: says that it is one, and makes empty files. Where `real` is not empty, what is
# compiled to a fatbin, as our own kernels are, goes to that nvcc, and its warnings are errors.
if [ "$1" = --version ]; then
    # cudarc reads the release from the fourth line.
    printf 'nvcc: NVIDIA (R) Cuda compiler driver\nstands in\nfor checks\nCuda compilation tools, release 13.0, V13.0.88\n'
    exit 0
fi
case " $* " in
    *" -fatbin "*) [ -z "$real" ] || exec "$real" -Werror all-warnings "$@" ;;
esac
output=
folder=
source=
while [ $# -gt 0 ]; do
    case $1 in
        -o | --output-file) output=$2 && shift ;;
        --output-directory) folder=$2 && shift ;;
        *.cu) source=$1 ;;
    esac
    shift
done
if [ -n "$output" ]; then
    : > "$output"
elif [ -n "$folder" ] && [ -n "$source" ]; then
    : > "$folder/$(basename "$source" .cu).ptx"
fi
