"""Programs that ask with an AWS client: lines of JSON in, one line out for each."""
